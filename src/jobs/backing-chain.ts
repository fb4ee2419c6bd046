/** The images of a chain one by one, each opened alone, as `info --backing-chain` does (T-INFO-5). */
import { resolveStoredName } from '../core/backing-name.ts';
import { Disk, type OpenOptions } from '../core/disk.ts';
import type { BackingReference } from '../core/driver.ts';
import { addContext, BlockError } from '../core/errors.ts';
import type { Graph } from '../core/graph.ts';
import type { BlockNode } from '../core/node.ts';
import { openNode } from '../core/open.ts';

/** What an image says of the one below it. */
export interface NamedBacking {
  /** As stored. */
  readonly filename: string;
  /** Driver name; undefined: not told. */
  readonly format: string | undefined;
  /** The name that opens it; undefined: it cannot be told. */
  readonly path: string | undefined;
}

/** Undefined: the image is based on none. */
export function namedBacking(node: BlockNode): NamedBacking | undefined {
  const stored = node.storedBacking;
  if (stored === undefined) return undefined;
  const format = stored.format === '' ? undefined : stored.format;
  return { filename: stored.filename, format, path: pathOf(node, stored) };
}

function pathOf(node: BlockNode, { filename }: BackingReference): string | undefined {
  try {
    return resolveStoredName(node, filename);
  } catch (error) {
    if (error instanceof BlockError) return undefined;
    throw error;
  }
}

/** How every image is opened: for information only, and without what is below it. */
export const ALONE: OpenOptions = { noIO: true, noBacking: true };

/**
 * Calls `look` with `top` and then with each image below it; `name` is what `top` was opened by. All but `top` are
 * closed again. Throws BlockError: ELOOP for a chain that is a loop, EINVAL where a name leads nowhere.
 */
export async function eachImage(
  top: Disk,
  name: string,
  options: Pick<OpenOptions, 'forceShare' | 'signal'>,
  look: (disk: Disk) => void,
): Promise<void> {
  const { graph } = top;
  const names = new Set([name]);
  look(top);
  let named = namedBacking(top.node);
  for (let by = top.filename; named !== undefined; ) {
    const { path, format, filename } = named;
    if (path === undefined) {
      const text = `Could not determine absolute backing filename, but backing filename '${filename}' present`;
      throw new BlockError('EINVAL', text);
    }
    // The rule's own period (T-INFO-5).
    if (names.has(path)) throw new BlockError('ELOOP', `Backing file '${path}' creates an infinite loop.`);
    names.add(path);
    const { depthMax } = graph.openPolicy;
    if (names.size > depthMax) throw new BlockError('ELOOP', `More than ${depthMax} images below one another`);
    const disk = await openBelow(graph, { path, format, by }, { ...ALONE, ...options });
    try {
      look(disk);
      by = disk.filename;
      named = namedBacking(disk.node);
    } finally {
      await disk.close();
    }
  }
}

interface Below {
  readonly path: string;
  readonly format: string | undefined;
  /** The image that names it. */
  readonly by: string;
}

/** By the policy for names found in images. */
async function openBelow(graph: Graph, { path, format, by }: Below, options: OpenOptions): Promise<Disk> {
  if (format === undefined && !graph.openPolicy.probe) {
    const text = `The format of '${path}' is not told by '${by}', and is not guessed for files that images name`;
    throw new BlockError('EINVAL', text);
  }
  try {
    const node = await openNode(graph, { filename: path, tree: {}, options: { ...options, format }, namedBy: by });
    try {
      return await Disk.attach(graph, node, options);
    } finally {
      await graph.unpin(node).catch(() => {});
    }
  } catch (error) {
    throw error instanceof BlockError ? addContext(`Could not open '${path}'`, error) : error;
  }
}
