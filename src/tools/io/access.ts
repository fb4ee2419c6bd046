/** Requests as the shell makes them: the image's length counts in whole sectors, so that a file's last one may be part of it. */
import { alignUp } from '../../bytes/align.ts';
import type { Disk } from '../../core/disk.ts';
import type { DataFlags, ZeroFlags } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';

const SECTOR = 512;

/** Bytes. */
export function imageLength(disk: Disk): number {
  return alignUp(disk.length, SECTOR);
}

/** EIO for what is past the end; nothing is allocated for it. */
export function requireRange(disk: Disk, offset: number, length: number): void {
  if (offset + length > imageLength(disk)) throw new BlockError('EIO', 'Input/output error', { node: disk.nodeName });
}

/** Fills `target`; past the end of a file there are zeroes. */
export async function readRange(disk: Disk, offset: number, target: Uint8Array): Promise<void> {
  requireRange(disk, offset, target.length);
  const stored = Math.max(0, Math.min(target.length, disk.length - offset));
  target.fill(0, stored);
  await disk.read(Math.min(offset, disk.length), target.subarray(0, stored));
}

/** A write into a file's last sector makes it as long as it needs to be. */
export async function writeRange(disk: Disk, offset: number, source: Uint8Array, flags: DataFlags): Promise<void> {
  requireRange(disk, offset, source.length);
  if (offset + source.length > disk.length) await disk.resize(offset + source.length);
  await disk.write(offset, source, flags);
}

export async function zeroRange(disk: Disk, offset: number, length: number, flags: ZeroFlags): Promise<void> {
  requireRange(disk, offset, length);
  if (offset + length > disk.length) await disk.resize(offset + length);
  await disk.writeZeroes(offset, length, flags);
}

export async function discardRange(disk: Disk, offset: number, length: number): Promise<void> {
  requireRange(disk, offset, length);
  const stored = Math.min(length, disk.length - offset);
  if (stored > 0) await disk.discard(offset, stored);
}

/** A buffer for a request. ENOMEM where there is no room for it. */
export function newBuffer(length: number, fill: number): Uint8Array {
  try {
    const buffer = new Uint8Array(length);
    return fill === 0 ? buffer : buffer.fill(fill);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new BlockError('ENOMEM', 'Cannot allocate memory');
  }
}
