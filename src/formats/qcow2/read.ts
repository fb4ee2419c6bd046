/** Reading (Q-READ-1, Q-READ-2): a request in runs, several at a time. */
import { settled } from '../../core/gate.ts';
import { corruption } from './corruption.ts';
import { readEncrypted, readEncryptedNow } from './encrypted-data.ts';
import type { Qcow2Image } from './image.ts';
import { findRun, loadRun, type Run } from './map.ts';
import { gatherCompressed, readCompressed } from './read-compressed.ts';
import { Kind } from './tables.ts';

/** Parts of one request that are read at a time. */
const AT_ONCE = 8;

export async function read(image: Qcow2Image, offset: number, target: Uint8Array): Promise<void> {
  image.requireUsable();
  const { gate } = image;
  const ticket = gate.closed ? await gate.enterWhenOpen() : gate.enter();
  try {
    await readInside(image, offset, target);
  } finally {
    gate.leave(ticket);
  }
}

/** The same for who is inside the gate, or behind it. */
export async function readInside(image: Qcow2Image, offset: number, target: Uint8Array): Promise<void> {
  let pieces: Promise<void>[] = [];
  try {
    for (let done = 0; done < target.length; ) {
      const run = await loadRun(image, offset + done, target.length - done);
      const piece = pieceOf(image, run, offset + done, target.length - done);
      if (piece.length === target.length) return await piece.read(target);
      const reading = piece.read(target.subarray(done, done + piece.length));
      // Waited for below, maybe after a table that the next piece needs.
      reading.catch(() => {});
      pieces.push(reading);
      done += piece.length;
      if (pieces.length < AT_ONCE) continue;
      const batch = pieces;
      pieces = [];
      await settled(batch);
    }
  } finally {
    await settled(pieces);
  }
}

/** What is read at one go: a run, or compressed clusters that follow each other. */
interface Piece {
  readonly length: number;
  read(target: Uint8Array): Promise<void>;
}

function pieceOf(image: Qcow2Image, run: Run, guest: number, limit: number): Piece {
  if (run.kind !== Kind.compressed) {
    return { length: run.length, read: (target) => readRun(image, run, guest, target) };
  }
  const compressed = gatherCompressed(image, run, guest, limit);
  return { length: compressed.length, read: (target) => readCompressed(image, compressed, target) };
}

async function readRun(image: Qcow2Image, run: Run, guest: number, target: Uint8Array): Promise<void> {
  switch (run.kind) {
    case Kind.normal:
      return readStored(image, run, guest, target);
    case Kind.unallocated:
    case Kind.unallocatedAllocated:
      return readBacking(image, guest, target);
    case Kind.invalid:
      throw await corruption(image, { fatal: true, text: run.problem ?? 'Invalid cluster entry found' });
  }
  target.fill(0);
}

async function readStored(image: Qcow2Image, { host }: Run, guest: number, target: Uint8Array): Promise<void> {
  const { data, file, layout, cipher } = image;
  if (data === file && host - (host % layout.clusterSize) >= file.length()) {
    const text = `Cluster at host offset 0x${host.toString(16)} is beyond the end of the image file`;
    throw await corruption(image, { fatal: false, text, offset: host, length: target.length });
  }
  const event = image.raise('read_aio');
  if (event !== undefined) await event;
  if (cipher !== undefined) return readEncrypted(image, cipher, { host, guest }, target);
  if (!data.tryReadNow(host, target)) await data.read(host, target);
}

async function readBacking(image: Qcow2Image, guest: number, target: Uint8Array): Promise<void> {
  const { backing } = image;
  // Machine state behind the disk is no part of what lies below.
  if (backing === undefined || guest >= image.length) {
    target.fill(0);
    return;
  }
  const event = image.raise('read_backing_aio');
  if (event !== undefined) await event;
  await backing.read(guest, target);
}

/** At once or not at all: tables must be in memory. */
export function tryReadNow(image: Qcow2Image, offset: number, target: Uint8Array): boolean {
  if (image.broken !== undefined || image.gate.closed) return false;
  for (let done = 0; done < target.length; ) {
    const run = findRun(image, offset + done, target.length - done);
    if (run === undefined) return false;
    const part = run.length === target.length ? target : target.subarray(done, done + run.length);
    if (!readRunNow(image, run, offset + done, part)) return false;
    done += run.length;
  }
  return true;
}

function readRunNow(image: Qcow2Image, run: Run, guest: number, target: Uint8Array): boolean {
  switch (run.kind) {
    case Kind.normal:
      return image.cipher === undefined
        ? image.data.tryReadNow(run.host, target)
        : readEncryptedNow(image, image.cipher, { host: run.host, guest }, target);
    case Kind.unallocated:
    case Kind.unallocatedAllocated:
      return readBackingNow(image, guest, target);
    case Kind.compressed: {
      const bytes = run.compressed && image.decompressed.peek(run.compressed);
      if (bytes === undefined) return false;
      const start = guest % image.layout.clusterSize;
      target.set(bytes.subarray(start, start + target.length));
      return true;
    }
    case Kind.invalid:
      return false;
  }
  target.fill(0);
  return true;
}

function readBackingNow({ backing }: Qcow2Image, guest: number, target: Uint8Array): boolean {
  const inside = Math.max(0, Math.min(target.length, (backing?.length() ?? 0) - guest));
  if (backing !== undefined && inside > 0) {
    if (!backing.tryReadNow(guest, inside === target.length ? target : target.subarray(0, inside))) return false;
  }
  if (inside < target.length) target.fill(0, inside);
  return true;
}
