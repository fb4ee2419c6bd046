/** Writing (Q-WR): in place where storage is the image's alone, else into new storage that is linked afterwards. */
import { settled } from '../../core/gate.ts';
import { allocateAndWrite, planAllocation } from './allocate.ts';
import { tryAllocateNow } from './allocate-now.ts';
import { corruption } from './corruption.ts';
import { writeEncrypted, writeEncryptedNow } from './encrypted-data.ts';
import type { Qcow2Image } from './image.ts';
import { isL2Writable, makeL2Writable } from './l2-tables.ts';
import { findRun, type Run, sliceOffset, spotOf } from './map.ts';
import { requireNoOverlap } from './metadata-io.ts';
import { Kind } from './tables.ts';

/** Parts of one request that are written at a time. */
const AT_ONCE = 8;

export async function write(image: Qcow2Image, offset: number, source: Uint8Array): Promise<void> {
  image.requireUsable();
  const { gate } = image;
  const ticket = gate.closed ? await gate.enterWhenOpen() : gate.enter();
  let pieces: Promise<void>[] = [];
  try {
    for (let done = 0; done < source.length; ) {
      const rest = done === 0 ? source : source.subarray(done);
      const piece = await begin(image, offset + done, rest);
      // Waited for below, maybe after a table that the next piece needs.
      piece.work.catch(() => {});
      pieces.push(piece.work);
      done += piece.length;
      if (pieces.length < AT_ONCE) continue;
      const batch = pieces;
      pieces = [];
      await settled(batch);
    }
  } finally {
    try {
      await settled(pieces);
    } finally {
      gate.leave(ticket);
    }
  }
}

interface Piece {
  /** Bytes of the request that are being written. */
  readonly length: number;
  readonly work: Promise<void>;
}

/** Begins to write as much of `source` as one step can, once nobody else is giving those clusters storage (Q-WR-6). */
async function begin(image: Qcow2Image, guest: number, source: Uint8Array): Promise<Piece> {
  for (;;) {
    const run = findRun(image, guest, source.length);
    if (run === undefined) {
      const { l2Offset, index } = spotOf(image, guest);
      await image.l2.get(sliceOffset(image, l2Offset, index));
      continue;
    }
    if (run.kind === Kind.invalid)
      throw await corruption(image, { fatal: true, text: writeProblem(image, run, guest) });
    const other = image.allocations.overlapping(guest, guest + source.length);
    if (other !== undefined && other.from <= guest) {
      await other.changed;
      continue;
    }
    const limit = other === undefined ? source.length : other.from - guest;
    if (isWritableRun(image, run)) {
      const length = Math.min(run.length, limit);
      return { length, work: writeInPlace(image, run.host, guest, part(source, length)) };
    }
    if (!isL2Writable(image, guest)) {
      await makeL2Writable(image, spotOf(image, guest).l1Index);
      continue;
    }
    const plan = planAllocation(image, guest, limit);
    return { length: plan.length, work: allocateAndWrite(image, plan, part(source, plan.length)) };
  }
}

/** Q-MAP-8: some texts differ from those of reading. */
function writeProblem(image: Qcow2Image, run: Run, guest: number): string {
  const text = run.problem ?? 'Invalid cluster entry found';
  const unaligned = /^Cluster allocation offset (\S+) unaligned/.exec(text);
  const start = guest - (guest % image.layout.clusterSize);
  if (unaligned !== null)
    return `Data cluster offset ${unaligned[1]} unaligned (guest offset: 0x${start.toString(16)})`;
  return text.replace('found  (', 'found (');
}

function isWritableRun(image: Qcow2Image, { kind, copied }: Run): boolean {
  return kind === Kind.normal && (copied || image.layout.hasDataFile);
}

function part(source: Uint8Array, length: number): Uint8Array {
  return length === source.length ? source : source.subarray(0, length);
}

/** Writes guest data, as the guest has them at `guest`, at their place. */
export async function writeInPlace(image: Qcow2Image, host: number, guest: number, source: Uint8Array): Promise<void> {
  const { data, file, cipher } = image;
  if (data === file) await requireNoOverlap(image, host, source.length, 0);
  const event = image.raise('write_aio');
  if (event !== undefined) await event;
  if (cipher !== undefined) return writeEncrypted(image, cipher, { host, guest }, source);
  if (!data.tryWriteNow(host, source)) await data.write(host, source);
}

/** At once or not at all: in place, in one run. */
export function tryWriteNow(image: Qcow2Image, offset: number, source: Uint8Array): boolean {
  if (image.broken !== undefined || image.gate.closed) return false;
  const run = findRun(image, offset, source.length);
  if (run === undefined || run.length < source.length) return false;
  if (run.kind === Kind.unallocated) return tryAllocateNow(image, offset, source);
  if (!isWritableRun(image, run)) return false;
  const { data, file, allocations, cipher } = image;
  if (allocations.size > 0 && allocations.overlapping(offset, offset + source.length) !== undefined) return false;
  if (data === file && image.overlapIn(run.host, source.length, 0) !== 0) return false;
  if (cipher !== undefined) return writeEncryptedNow(image, cipher, { host: run.host, guest: offset }, source);
  return data.tryWriteNow(run.host, source);
}
