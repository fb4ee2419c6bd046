/** The image below: the one that the options name, or the one that the image itself does (BL-CHAIN-6, BL-CHAIN-7). */
import { resolveStoredName } from './backing-name.ts';
import type { BackingReference } from './driver.ts';
import { addContext, BlockError } from './errors.ts';
import type { BlockNode } from './node.ts';
import { type BackingOptions, type Level, openNode, referredNode } from './open.ts';
import { inheritedSettings } from './open-settings.ts';
import type { OptionTree } from './options.ts';

/** Opens and links the backing child, if there is to be one. Throws BlockError; the node is then without. */
export async function openBacking(level: Level, node: BlockNode, given: BackingOptions): Promise<void> {
  const { graph, asked } = level;
  if (node.driver.kind !== 'format' || node.driver.supportsBacking !== true) return;
  const { reference, inner } = given;
  const stored = node.storedBacking;
  node.automaticBackingName = stored === undefined ? '' : (tryResolve(node, stored) ?? stored.filename);
  node.noBacking = reference === null || (asked.options.noBacking === true && reference === undefined);
  if (node.noBacking) return;
  const named = reference ?? undefined;
  if (named === undefined && stored === undefined && Object.keys(inner).length === 0) return;
  const name = named === undefined ? impliedName(node, stored, inner) : undefined;
  let backing: BlockNode | undefined;
  try {
    backing =
      named === undefined
        ? await openFromOptions(level, node, { stored, filename: name, inner })
        : referredNode(graph, named, Object.keys(inner).length === 0);
    graph.attach('backing', node, backing, 'cow', undefined);
    if (named === undefined) backing.origin = { ...backing.origin, inheritsFrom: node };
  } catch (error) {
    node.noBacking = true;
    throw addContext('Could not open backing file', error);
  } finally {
    if (backing !== undefined) await graph.unpin(backing).catch(() => {});
  }
}

/** What the image names, unless the options name a file (BL-CHAIN-6). Throws BlockError where it lies in no folder (BL-NAME-6). */
function impliedName(node: BlockNode, stored: BackingReference | undefined, inner: OptionTree): string | undefined {
  const overridden = inner['file.filename'] !== undefined || inner.filename !== undefined;
  return overridden || stored === undefined ? undefined : resolveStoredName(node, stored.filename);
}

interface BackingSource {
  readonly stored: BackingReference | undefined;
  /** As the image names it; undefined: the options say what to open. */
  readonly filename: string | undefined;
  readonly inner: OptionTree;
}

async function openFromOptions(
  level: Level,
  node: BlockNode,
  { stored, filename, inner }: BackingSource,
): Promise<BlockNode> {
  const { graph, asked, settings } = level;
  const overridden = filename === undefined;
  const chainDepth = (asked.chainDepth ?? 0) + 1;
  if (chainDepth > graph.openPolicy.depthMax) {
    throw new BlockError('ELOOP', `More than ${graph.openPolicy.depthMax} images below one another`);
  }
  const told = inner.driver !== undefined || (stored?.format ?? '') !== '';
  if (!overridden && !told && !graph.openPolicy.probe) {
    const text = `The format of '${filename}' is not told by '${node.filename}', and is not guessed for files that images name`;
    const hint = 'Give it with backing.driver=FORMAT.';
    throw new BlockError('EINVAL', text, { node: node.name, hint });
  }
  const chainFiles = await filesAbove(level, node, filename);
  // Options that the image implies are for the driver that it implies.
  const same = inner.driver === undefined || inner.driver === stored?.format;
  const implied = same && !overridden ? stored?.options : {};
  const tree: OptionTree = told ? { driver: stored?.format ?? '', ...implied, ...inner } : inner;
  return openNode(graph, {
    filename,
    tree,
    options: asked.options,
    inherited: { settings: inheritedSettings(settings, 'cow'), role: 'cow', protocolLevel: false },
    depth: 0,
    chainDepth,
    chainFiles,
    namedBy: overridden ? undefined : node.filename,
  });
}

/**
 * Files of the chain down to `node`, with links resolved. ELOOP when the image names one of them, as images from an enemy
 * may: it would be opened below itself again and again.
 */
async function filesAbove(level: Level, node: BlockNode, named: string | undefined): Promise<readonly string[]> {
  const { graph, asked } = level;
  const resolve = (name: string) => graph.host.files.resolve(name).catch(() => name);
  const own = node.primary?.node.exactName ?? '';
  const files = [...(asked.chainFiles ?? []), ...(own === '' ? [] : [await resolve(own)])];
  if (named !== undefined && files.includes(await resolve(named))) {
    throw new BlockError('ELOOP', `The chain of images is a loop: '${named}' would be below itself`, {
      node: node.name,
    });
  }
  return files;
}

/** For comparing names; a name that cannot be resolved shows when it is opened. */
function tryResolve(node: BlockNode, stored: BackingReference): string | undefined {
  try {
    return resolveStoredName(node, stored.filename);
  } catch (error) {
    if (error instanceof BlockError) return undefined;
    throw error;
  }
}
