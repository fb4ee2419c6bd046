/** What a new image is to be based on (BL-CREATE-6, BL-CREATE-7). */
import { resolveBackingName } from './backing-name.ts';
import type { CreateRequest } from './create.ts';
import type { BackingOptionNames, DriverSpec } from './driver.ts';
import { asBlockError, BlockError, codeOf, withErrno } from './errors.ts';
import { FOREIGN_FORMATS } from './foreign-formats.ts';
import type { Graph } from './graph.ts';
import type { BlockNode } from './node.ts';
import { openNode } from './open.ts';
import type { AnySchema, OptionTree, OptionValue } from './options.ts';

/** The creation options that name the image below; undefined: images of this kind are based on none. */
export function backingOptionNames({ create }: DriverSpec): BackingOptionNames | undefined {
  if (create?.backing !== undefined) return create.backing;
  const has = (name: string) => create !== undefined && Object.hasOwn(create.options as AnySchema, name);
  if (!has('backing_file')) return undefined;
  return { file: 'backing_file', ...(has('backing_fmt') ? { format: 'backing_fmt' } : {}) };
}

/** The options of a request with its backing file and format among them. Throws BlockError ENOTSUP where there are none. */
export function backingAsOptions(asked: CreateRequest, spec: DriverSpec): OptionTree {
  const { format, backingFile, backingFormat } = asked;
  const names = backingOptionNames(spec);
  if (backingFile !== undefined && names === undefined) {
    throw new BlockError('ENOTSUP', `Backing file not supported for file format '${format}'`);
  }
  if (backingFormat !== undefined && names?.format === undefined && names?.only === undefined) {
    throw new BlockError('ENOTSUP', `Backing file format not supported for file format '${format}'`);
  }
  const added: Record<string, OptionValue> = {};
  if (names !== undefined && backingFile !== undefined) added[names.file] = backingFile;
  if (names?.format !== undefined && backingFormat !== undefined) added[names.format] = backingFormat;
  return added;
}

/**
 * Checks what the options name as the image below, and opens it to see that it is there, unless the request is unchecked.
 * Resolves with its size in bytes; undefined: none is named, or it was not looked at. Throws BlockError.
 */
export async function checkBacking(
  graph: Graph,
  asked: CreateRequest,
  spec: DriverSpec,
  given: OptionTree,
): Promise<number | undefined> {
  const names = backingOptionNames(spec);
  const name = names && given[names.file];
  if (names === undefined || name === undefined) {
    if (asked.backingFormat === undefined || names?.format !== undefined) return undefined;
    throw new BlockError('EINVAL', 'Backing format cannot be used without backing file');
  }
  if (name === '') throw new BlockError('EINVAL', 'Expected backing file name, got empty string');
  const path = resolveBackingName(asked.filename, String(name));
  if (String(name) === asked.filename || (await isSameFile(graph, asked.filename, path))) {
    const text = 'Error: Trying to create an image with the same filename as the backing file';
    throw new BlockError('EINVAL', text);
  }
  const format = formatOf(asked, names, given);
  const found = asked.unchecked === true ? undefined : await lookAt(graph, path, format, asked.signal);
  if (format === undefined) {
    const hint = found && `Detected format of ${found.format}.`;
    throw new BlockError('EINVAL', 'Backing file specified without backing format', { hint });
  }
  return found?.size;
}

/** Whether the format that is stored is one at all; asked when the user has been told what is made. Throws BlockError. */
export function requireFormat(graph: Graph, spec: DriverSpec, given: OptionTree): void {
  const option = backingOptionNames(spec)?.format;
  const format = option === undefined ? undefined : given[option];
  if (option === undefined || format === undefined) return;
  if (graph.driver(String(format)) !== undefined || FOREIGN_FORMATS.has(String(format))) return;
  throw new BlockError('EINVAL', `Parameter '${option.replace('_', '-')}' does not accept value '${format}'`);
}

/** What was said of the format, in one way or the other; a name given as the format's own option implies its only one. */
function formatOf(asked: CreateRequest, names: BackingOptionNames, given: OptionTree): string | undefined {
  const { backingFile, backingFormat } = asked;
  const told = names.format === undefined ? backingFormat : given[names.format];
  if (names.only === undefined) return told === undefined ? undefined : String(told);
  if (told !== undefined && told !== names.only) {
    const text = `Images of format '${asked.format}' can only be based on images of format '${names.only}', not '${told}'`;
    throw new BlockError('ENOTSUP', text);
  }
  return told === undefined && backingFile !== undefined ? undefined : names.only;
}

async function isSameFile({ host }: Graph, filename: string, backing: string): Promise<boolean> {
  const resolved = await Promise.all([filename, backing].map((name) => host.files.resolve(name).catch(() => name)));
  return resolved[0] === resolved[1];
}

/** Opens the image for a look, whoever uses it. */
async function lookAt(
  graph: Graph,
  filename: string,
  format: string | undefined,
  signal: AbortSignal | undefined,
): Promise<{ readonly size: number; readonly format: string }> {
  try {
    const tree: OptionTree = format === undefined ? {} : { driver: format };
    const node = await openNode(graph, { filename, tree, options: { noIO: true, forceShare: true, signal } });
    try {
      return { size: sizeOf(node, filename), format: node.driver.name };
    } finally {
      await graph.unpin(node);
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    const { code, message, node, hint } = asBlockError(error);
    const hints = [...(hint === undefined ? [] : [hint]), 'Could not open backing image.'].join('\n');
    throw new BlockError(code, message, { node, cause: error, hint: hints });
  }
}

function sizeOf(node: BlockNode, filename: string): number {
  try {
    return node.impl.length();
  } catch (cause) {
    throw withErrno(codeOf(cause), `Could not get size of '${filename}'`, { cause });
  }
}
