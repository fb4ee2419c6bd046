/** The block map in memory: one 32-bit entry for each block of the disk (V-3, V-4). */

import { alignDown } from '../../bytes/align.ts';
import type { Child } from '../../core/driver.ts';

/** Never allocated: zero, or the parent's in a differencing image. */
export const UNALLOCATED = 0xffffffff;
/** Known to be zero. */
export const ZEROED = 0xfffffffe;

export function isStored(entry: number): boolean {
  return entry < ZEROED;
}

/** Entries that are written together. */
export const PAGE_ENTRIES = 1024;
const ENTRY_BYTES = 4;
/** The map is read in pieces, so that a long one does not hold one request up. */
const READ_PIECE = 4 << 20;

const bigEndian = new Uint8Array(new Uint32Array([1]).buffer)[0] === 0;

export async function readMap(file: Child, offset: number, blocks: number): Promise<Uint32Array> {
  const map = new Uint32Array(blocks);
  const bytes = new Uint8Array(map.buffer);
  for (let at = 0; at < bytes.length; at += READ_PIECE) {
    await file.read(offset + at, bytes.subarray(at, at + READ_PIECE));
  }
  if (bigEndian) swapWords(bytes);
  return map;
}

/** Entries `first` to before `end` as they are stored. */
export function mapBytes(map: Uint32Array, first: number, end: number): Uint8Array {
  const bytes = new Uint8Array(map.slice(first, end).buffer);
  if (bigEndian) swapWords(bytes);
  return bytes;
}

function swapWords(bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; i += ENTRY_BYTES) bytes.subarray(i, i + ENTRY_BYTES).reverse();
}

/** Which parts of the map differ from what is on disk, a bit for each page. */
export class DirtyPages {
  #pages = new Set<number>();

  mark(block: number): void {
    this.#pages.add(alignDown(block, PAGE_ENTRIES));
  }

  markAll(blocks: number): void {
    for (let first = 0; first < blocks; first += PAGE_ENTRIES) this.#pages.add(first);
  }

  get any(): boolean {
    return this.#pages.size > 0;
  }

  /** First entries of the dirty pages, ascending; none is dirty afterwards. */
  take(): number[] {
    const taken = [...this.#pages].sort((a, b) => a - b);
    this.#pages = new Set();
    return taken;
  }

  /** Pages that could not be written are dirty again. */
  putBack(pages: readonly number[]): void {
    for (const page of pages) this.#pages.add(page);
  }
}
