/** Opens the images that are to be served. */
import type { Disk, OpenOptions } from '../../core/disk.ts';
import { addContext, asBlockError } from '../../core/errors.ts';
import type { Graph } from '../../core/graph.ts';
import { type NestedOptions, SIZE_HINT } from '../../core/options.ts';
import { keyValues } from '../command-line/arguments.ts';
import type { Context } from '../context.ts';
import { Failure, mayBeLost } from '../failure.ts';
import { requireDirectFiles } from '../native-aio.ts';
import type { Messages } from '../output/stream.ts';
import { loadSnapshot } from '../snapshots.ts';
import type { ExportArgument, NbdArguments } from './arguments.ts';
import type { ServedExport } from './run-server.ts';

/** All exports with their disks. Throws BlockError, Failure; then all that was opened is closed. */
export async function openExports(
  { messages, signal }: Pick<Context, 'messages' | 'signal'>,
  graph: Graph,
  args: NbdArguments,
): Promise<ServedExport[]> {
  const found: ServedExport[] = [];
  try {
    const [file] = args.operands;
    if (file !== undefined) found.push(await mainExport({ messages, signal }, graph, args, file));
    for (const each of args.exports) found.push(await furtherExport(graph, args, each, { first: found[0], signal }));
    const wanted = args.given.get('default-export');
    if (wanted === undefined) return found;
    if (!found.some(({ options }) => options.name === wanted)) {
      throw new Failure(`There is no export named '${wanted}' to be the default`);
    }
    return found.map(({ disk, options }) => ({ disk, options: { ...options, default: options.name === wanted } }));
  } catch (error) {
    await closeExports(found);
    throw error;
  }
}

export async function closeExports(exports: readonly ServedExport[]): Promise<void> {
  const disks = new Set(exports.map(({ disk }) => disk));
  const results = await Promise.allSettled([...disks].map((disk) => disk.close()));
  for (const result of results) if (result.status === 'rejected') throw mayBeLost(result.reason);
}

async function mainExport(
  { messages, signal }: Pick<Context, 'messages' | 'signal'>,
  graph: Graph,
  args: NbdArguments,
  file: string,
): Promise<ServedExport> {
  const { given, bitmaps, offset, loadSnapshot: snapshot } = args;
  const asked = { ...openOptions(args, given.get('format')), signal };
  const how = snapshot === undefined ? asked : { ...asked, writable: false };
  const disk = await open(graph, imageSource(given, file, messages), file, how, given.get('aio'));
  if (snapshot !== undefined) await withDiskUnlessFailed(disk, () => loadSnapshot(disk, snapshot));
  const options = {
    name: given.get('export-name') ?? '',
    description: given.get('description') ?? '',
    bitmaps,
    offset: Number(offset),
    allocationDepth: given.has('allocation-depth'),
  };
  await withDiskUnlessFailed(disk, async () => checkOffset(offset, disk.length));
  return { disk, options };
}

function checkOffset(offset: bigint, length: number): void {
  if (offset >= 1n << 63n) {
    throw new Failure("Parameter 'offset' expects a non-negative number below 2^64", { hint: SIZE_HINT });
  }
  if (offset > BigInt(length)) {
    throw new Failure(`Offset (${offset}) cannot be greater than size of the containing file (${length})`);
  }
}

async function withDiskUnlessFailed(disk: Disk, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    await disk.close().catch(() => {});
    throw error;
  }
}

function imageSource(given: NbdArguments['given'], file: string, messages: Messages): string | NestedOptions {
  if (!given.has('image-opts')) return file;
  if (given.has('format')) throw new Failure('--image-opts and -f are mutually exclusive');
  return Object.fromEntries(keyValues(file, 'file', (message, hint) => messages.warning(message, hint)));
}

function openOptions({ given, cache, discard, detectZeroes }: NbdArguments, format: string | undefined): OpenOptions {
  return {
    format,
    writable: !given.has('read-only'),
    cache,
    discard,
    detectZeroes,
    snapshot: given.has('snapshot'),
  };
}

async function furtherExport(
  graph: Graph,
  args: NbdArguments,
  { file, node, format, options }: ExportArgument,
  { first, signal }: { readonly first: ServedExport | undefined; readonly signal: AbortSignal },
): Promise<ServedExport> {
  const readOnly = options.readOnly ?? args.given.has('read-only');
  const how = { ...openOptions(args, format), writable: !readOnly, signal };
  if (file !== undefined) {
    const disk = await open(graph, file, file, how, args.given.get('aio'));
    return { disk, options: { ...options, readOnly } };
  }
  if (node !== undefined) {
    const found = graph.lookUp(node);
    return { disk: await graph.openReference(node, { writable: !readOnly && found.writable }), options };
  }
  if (first === undefined) throw new Failure(`Export '${options.name}' names neither a file nor a node`);
  return { disk: first.disk, options };
}

async function open(
  graph: Graph,
  source: string | NestedOptions,
  name: string,
  options: OpenOptions,
  aio: string | undefined,
): Promise<Disk> {
  try {
    const disk = await graph.open(source, options);
    if (aio === 'native') await withDiskUnlessFailed(disk, async () => requireDirectFiles(graph));
    return disk;
  } catch (error) {
    throw addContext(`Failed to blk_new_open '${name}'`, asBlockError(error));
  }
}
