/** Rebasing: another image below, or none, under the same content (T-REBASE-1). */
import { alignDown } from '../bytes/align.ts';
import { firstDifference } from '../bytes/difference.ts';
import { isZero } from '../bytes/zero.ts';
import { resolveStoredName } from '../core/backing-name.ts';
import type { CacheMode } from '../core/cache.ts';
import { chainContains, findBackingImage, skipFilters } from '../core/chain.ts';
import { changeBackingFile, setBacking } from '../core/chain-change.ts';
import type { Disk } from '../core/disk.ts';
import type { BackingReference, Progress } from '../core/driver.ts';
import { addContext, BlockError, withErrno } from '../core/errors.ts';
import type { Graph } from '../core/graph.ts';
import type { BlockNode } from '../core/node.ts';
import * as request from '../core/request.ts';
import { type LayerStatus, statusAbove } from '../core/status.ts';

/** Options of {@link rebaseDisk}. */
export interface RebaseOptions {
  /**
   * The image to be below, as its name is to be stored: a relative one is seen from the folder of the disk's image.
   * Absent: none, all that came from below is copied up (flattening).
   */
  readonly backing?:
    | { readonly filename: string /** Driver name. */; readonly format?: string | undefined }
    | undefined;
  /** Change what the image says of the one below it, and nothing else: the content may become another. */
  readonly unsafe?: boolean;
  /** Of the image to be below. */
  readonly cache?: CacheMode;
  /** Open the image to be below even though others write to it. */
  readonly forceShare?: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Bytes of the disk that were looked at. */
  readonly progress?: Progress | undefined;
}

const SECTOR = 512;
/** Longest read and write, bytes. */
const STEP = 1 << 20;
/** Steps at a time, with two buffers each; the disk's users wait for as long as they take. */
const PARALLEL = 4;

/**
 * Changes the image below a disk that is open for writing. What the new one has otherwise than the old one is written
 * into the disk's image first, so that the content stays; only then the header is changed. After a failure or an abort
 * the disk reads as before, from the old image. Users may go on reading and writing meanwhile.
 * Throws BlockError in the words of T-REBASE-1, or the signal's reason.
 */
export async function rebase(disk: Disk, options: RebaseOptions = {}): Promise<void> {
  const { graph } = disk;
  const top = skipFilters(disk.node);
  const { backing, unsafe = false, progress } = options;
  if (!disk.writable) throw new BlockError('EPERM', 'Block node is read-only', { node: top.name });
  if (backing?.format !== undefined && graph.driver(backing.format) === undefined) {
    throw new BlockError('EINVAL', `Invalid format name: '${backing.format}'`);
  }
  if (unsafe) {
    requireChangeable(top, backing);
    await changeHeader(graph, top, backing);
    progress?.(top.impl.length(), top.impl.length());
    return;
  }
  const next = backing && (await newBacking(graph, top, backing, options));
  try {
    requireChangeable(top, backing);
    await copyUp(graph, top, next?.node, options);
    const before = top.backing?.node;
    if (before !== undefined) graph.hold(before);
    try {
      await setBacking(graph, top, next?.node);
      await changeHeader(graph, top, backing).catch(async (error: unknown) => {
        await setBacking(graph, top, before);
        throw error;
      });
    } finally {
      if (before !== undefined) await graph.release(before);
    }
  } finally {
    await next?.release();
  }
}

interface NewBacking {
  readonly node: BlockNode;
  release(): Promise<void>;
}

/** An image of the present chain where the name leads to one, else opened for the purpose. */
async function newBacking(
  graph: Graph,
  top: BlockNode,
  { filename, format }: BackingReferenceGiven,
  { cache, forceShare = false, signal }: RebaseOptions,
): Promise<NewBacking> {
  const known = await findBackingImage(graph.host, top, filename);
  if (known !== undefined && (format === undefined || format === known.driver.name)) {
    graph.hold(known);
    return { node: known, release: () => graph.release(known) };
  }
  try {
    const disk = await graph.open(resolveStoredName(top, filename), {
      format,
      forceShare,
      signal,
      ...(cache && { cache }),
    });
    return { node: disk.node, release: () => disk.close() };
  } catch (error) {
    throw error instanceof BlockError ? addContext(`Could not open new backing file '${filename}'`, error) : error;
  }
}

type BackingReferenceGiven = NonNullable<RebaseOptions['backing']>;

/** What would be refused in the end is refused before all the copying. */
function requireChangeable(top: BlockNode, backing: BackingReferenceGiven | undefined): void {
  if (backing !== undefined && (backing.format ?? '') === '') {
    throw headerFailure(backing, 'EINVAL', 'backing format must be specified');
  }
  if (top.impl.changeBacking === undefined) throw headerFailure(backing, 'ENOTSUP');
}

async function changeHeader(graph: Graph, top: BlockNode, backing: BackingReferenceGiven | undefined): Promise<void> {
  const reference: BackingReference | undefined = backing && {
    filename: backing.filename,
    format: backing.format ?? '',
  };
  try {
    await changeBackingFile(graph, top, reference);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw headerFailure(
      backing,
      error.code,
      error.code === 'ENOSPC' ? 'No space left in the file header' : undefined,
      error,
    );
  }
}

function headerFailure(
  backing: BackingReferenceGiven | undefined,
  code: BlockError['code'],
  text?: string,
  cause?: unknown,
): BlockError {
  const context = `Could not change the backing file to '${backing?.filename ?? ''}'`;
  return text === undefined
    ? withErrno(code, context, { cause })
    : new BlockError(code, `${context}: ${text}`, { cause });
}

/** Writes into `top` what it lacks and `next` has otherwise than what is below now. */
async function copyUp(
  graph: Graph,
  top: BlockNode,
  next: BlockNode | undefined,
  { signal, progress }: RebaseOptions,
): Promise<void> {
  const length = top.impl.length();
  const layers = { top, old: top.backing?.node, next };
  let offset = 0;
  progress?.(0, length);
  while (offset < length) {
    signal?.throwIfAborted();
    // Held back while this part is compared and copied, so that nothing newer is overwritten.
    const drain = await graph.drain(top);
    try {
      const pieces: Piece[] = [];
      while (offset < length && pieces.length < PARALLEL) {
        signal?.throwIfAborted();
        const { end, wanted } = await lookAt(layers, offset, Math.min(length - offset, MAX_LOOK));
        if (wanted !== undefined) pieces.push(wanted);
        offset = end;
      }
      const results = await Promise.allSettled(pieces.map((piece) => copyPiece(layers, piece)));
      for (const result of results) if (result.status === 'rejected') throw result.reason;
    } finally {
      drain.end();
    }
    progress?.(offset, length);
  }
  await request.flush(top);
}

/** Runs are looked at in parts, so that users do not wait for long. */
const MAX_LOOK = 1 << 30;

interface Layers {
  readonly top: BlockNode;
  readonly old: BlockNode | undefined;
  readonly next: BlockNode | undefined;
}

/** A range to be compared; both lie inside one run of each side. */
interface Piece {
  readonly offset: number;
  readonly length: number;
  /** Known to be zero, needs no reading. */
  readonly oldZero: boolean;
  readonly nextZero: boolean;
}

/** What is to be done at `offset`, and how far that reaches. */
async function lookAt(
  { top, old, next }: Layers,
  offset: number,
  length: number,
): Promise<{ readonly end: number; readonly wanted?: Piece }> {
  const own = await statusAbove(top, top.backing && skipFilters(top.backing.node), offset, length);
  if (own.allocated) return { end: offset + own.length };
  const before = await sideStatus(old, next, offset, own.length);
  // Above the new image nothing of the old chain is stored: both read the same.
  if (before.same) return { end: offset + before.length };
  const after = await sideStatus(next, undefined, offset, before.length);
  const run = after.length;
  if (before.zero && after.zero) return { end: offset + run };
  const piece = Math.min(run, STEP);
  return {
    end: offset + piece,
    wanted: { offset, length: piece, oldZero: before.zero, nextZero: after.zero },
  };
}

/** Of one side: zero where nothing is. `same`: nothing is stored above `base`, which is in its chain. */
async function sideStatus(
  side: BlockNode | undefined,
  base: BlockNode | undefined,
  offset: number,
  length: number,
): Promise<{ length: number; zero: boolean; same: boolean }> {
  const inside = side === undefined ? 0 : side.impl.length() - offset;
  if (side === undefined || inside <= 0) return { length, zero: true, same: false };
  const above = base !== undefined && chainContains(side, base) ? base : undefined;
  const status: LayerStatus = await statusAbove(side, above, offset, Math.min(length, inside));
  const same = above !== undefined && !status.allocated;
  return { length: status.length, zero: !same && status.zero, same };
}

/** Runs of differing sectors are written; where the old side is past its end or zero, as zeroes. */
async function copyPiece({ top, old, next }: Layers, { offset, length, oldZero, nextZero }: Piece): Promise<void> {
  const a = new Uint8Array(length);
  const b = new Uint8Array(length);
  await Promise.all([
    oldZero ? undefined : read(old, offset, a, 'error while reading from old backing file'),
    nextZero ? undefined : read(next, offset, b, 'error while reading from new backing file'),
  ]);
  for (let at = 0; at < length; ) {
    const first = firstDifference(a.subarray(at), b.subarray(at));
    if (first < 0) return;
    const start = alignDown(at + first, SECTOR);
    const end = endOfDifference(a, b, start);
    await put(top, offset + start, a.subarray(start, end));
    at = end;
  }
}

/** Equal sectors end a run. */
function endOfDifference(a: Uint8Array, b: Uint8Array, start: number): number {
  let end = Math.min(a.length, start + SECTOR);
  while (end < a.length && firstDifference(a.subarray(end, end + SECTOR), b.subarray(end, end + SECTOR)) >= 0) {
    end = Math.min(a.length, end + SECTOR);
  }
  return end;
}

async function read(node: BlockNode | undefined, offset: number, target: Uint8Array, failure: string): Promise<void> {
  if (node === undefined) return;
  await request.read(node, offset, target).catch((error: unknown) => {
    throw error instanceof BlockError ? withErrno(error.code, failure, { node: node.name, cause: error }) : error;
  });
}

async function put(top: BlockNode, offset: number, bytes: Uint8Array): Promise<void> {
  const writing = isZero(bytes)
    ? request.writeZeroes(top, offset, bytes.length, request.NO_FLAGS)
    : request.write(top, offset, bytes, request.NO_FLAGS);
  await writing.catch((error: unknown) => {
    if (!(error instanceof BlockError)) throw error;
    throw withErrno(error.code, 'Error while writing to COW image', { node: top.name, cause: error });
  });
}
