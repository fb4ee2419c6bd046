/** READ: at once where nothing needs waiting for; holes without their zeroes; what was read before a failure (N-41, N-50 to N-54). */
import { lastingPlace } from '../../core/bulk.ts';
import type { Disk } from '../../core/disk.ts';
import { BlockError, codeOf, errorText } from '../../core/errors.ts';
import type { BlockNode } from '../../core/node.ts';
import { CommandFlag, wireError } from '../protocol.ts';
import type { Request } from '../wire.ts';
import type { InFlight } from './in-flight.ts';
import { type BufferPool, INLINE_MAX } from './output.ts';
import type { Replies } from './replies.ts';

/** Shorter reads are answered as data, holes or not. */
const HOLES_MIN = 64 * 1024;
const SECTOR = 512;
/** Longer reads are copied by the host's threads, where there are others to be sent meanwhile. */
const ALONE_MAX = 128 * 1024;

/** Reads of at least so much go out without being copied, where they can. */
export const SEND_FILE_MIN = 128 * 1024;

export interface ReadContext {
  readonly disk: Disk;
  readonly replies: Replies;
  readonly pool: BufferPool;
  readonly inFlight: InFlight;
}

/**
 * `at`: the request's place on the disk. `now`: nobody watches requests, which may then go the short way. `others`: there are
 * more requests, waiting or under way.
 */
export function readRequest(
  context: ReadContext,
  request: Request,
  at: number,
  { now, others }: { readonly now: boolean; readonly others: boolean },
): void {
  const { disk, replies, pool, inFlight } = context;
  const { length } = request;
  if (replies.structured && length >= HOLES_MIN && (request.flags & CommandFlag.df) === 0 && readsAsTold(disk.node)) {
    const run = disk.tryStatusNow(at, length);
    if (run !== undefined && (run.zero || run.length < length)) {
      inFlight.run(length, () => readWithHoles(context, request, at));
      return;
    }
  }
  if (now && length >= SEND_FILE_MIN && sendFromFile(context, request, at)) return;
  if (now && length <= INLINE_MAX) {
    if (disk.tryReadNow(at, replies.reserveRead(length))) {
      replies.filledRead(request, request.offset);
      return;
    }
    replies.giveUpRead(length);
  }
  const lent = pool.take(length);
  const data = lent.subarray(0, length);
  const atOnce = now && length > INLINE_MAX && (length < ALONE_MAX || !others);
  if (atOnce && disk.tryReadNow(at, data)) {
    replies.data(request, request.offset, data, { lent, done: true });
    return;
  }
  inFlight.run(length, async () => {
    try {
      await disk.read(at, data);
    } catch (error) {
      await sendUpToFailure(context, request, { at, offset: request.offset, data, lent }, error);
      return;
    }
    replies.data(request, request.offset, data, { lent, done: true });
  });
}

function sendFromFile({ disk, replies, inFlight }: ReadContext, request: Request, at: number): boolean {
  const { length } = request;
  const place = disk.maySkipRequests ? lastingPlace(disk.node, at, length) : undefined;
  if (place === undefined || !replies.sendsFile(place, length)) return false;
  const rest = replies.fileData(request, {
    place,
    length,
    readNow: (skip, target) => disk.tryReadNow(at + skip, target),
    read: (skip, target) => disk.read(at + skip, target).then(() => {}),
  });
  if (rest !== undefined) inFlight.run(length, () => rest);
  return true;
}

/**
 * Whether zeroes may be told by status alone. A filter may fail reads or change what is read, and then holes must be read
 * as all else (N-53).
 */
function readsAsTold(node: BlockNode): boolean {
  if (node.driver.kind === 'filter') return false;
  for (const { node: child } of node.children) if (!readsAsTold(child)) return false;
  return true;
}

interface Part {
  /** On the disk, and in the export. */
  readonly at: number;
  readonly offset: number;
  /** As much as `data`, at the start of `lent`, which is given back. */
  readonly data: Uint8Array;
  readonly lent: Uint8Array;
}

/** What is readable before the first byte that is not, then the error there (N-54). */
async function sendUpToFailure(context: ReadContext, request: Request, part: Part, error: unknown): Promise<void> {
  const { replies, pool } = context;
  const good = replies.structured ? await readableBytes(context.disk, part) : 0;
  const { data, lent, offset } = part;
  if (good > 0) replies.data(request, offset, data.subarray(0, good), { lent, done: false });
  else pool.give(lent);
  replies.error(request, wireError(codeOf(error)), messageOf(error), offset + good);
}

/** Found by halving, which takes few reads. 0 for an error that was there once only. */
async function readableBytes(disk: Disk, { at, data }: Part): Promise<number> {
  const unit = Math.max(SECTOR, disk.limits.requestAlign);
  let good = 0;
  let bad = data.length;
  for (;;) {
    const middle = good + Math.ceil((bad - good) / 2);
    const aligned = middle - ((at + middle) % unit);
    const next = aligned > good ? aligned : good + unit - ((at + good) % unit);
    if (next >= bad) break;
    if (await isReadable(disk, at + good, data.subarray(good, next))) good = next;
    else bad = next;
  }
  return good > 0 && (await isReadable(disk, at + good, new Uint8Array(bad - good))) ? 0 : good;
}

async function isReadable(disk: Disk, at: number, target: Uint8Array): Promise<boolean> {
  try {
    await disk.read(at, target);
    return true;
  } catch {
    return false;
  }
}

/** Pieces by status, holes without their zeroes (N-53). */
async function readWithHoles(context: ReadContext, request: Request, start: number): Promise<void> {
  const { disk, replies, pool } = context;
  const end = start + request.length;
  for (let at = start; at < end; ) {
    const { length, zero } = pieceAt(disk, at, end);
    const last = at + length === end;
    const offset = request.offset + at - start;
    if (zero) replies.hole(request, offset, length, last);
    else {
      const lent = pool.take(length);
      const data = lent.subarray(0, length);
      try {
        await disk.read(at, data);
      } catch (error) {
        await sendUpToFailure(context, request, { at, offset, data, lent }, error);
        return;
      }
      replies.data(request, offset, data, { lent, done: last });
    }
    at += length;
  }
}

/** In whole sectors, where the request is. */
function pieceAt(disk: Disk, at: number, end: number): { readonly length: number; readonly zero: boolean } {
  const left = end - at;
  const run = disk.tryStatusNow(at, left);
  if (run === undefined) return { length: left, zero: false };
  if (run.length >= left) return { length: left, zero: run.zero };
  const whole = run.length - (run.length % SECTOR);
  return whole > 0 ? { length: whole, zero: run.zero } : { length: Math.min(SECTOR, left), zero: false };
}

export function messageOf(error: unknown): string {
  return error instanceof BlockError ? error.message : errorText(codeOf(error));
}
