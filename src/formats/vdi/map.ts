/** The block map in memory: one 32-bit entry for each block of the disk (V-3, V-4), and which parts of it the file lacks. */
import { swapU32OnBigEndian } from '../../bytes/endian.ts';
import type { Child } from '../../core/driver.ts';
import { type Bits, findBit, newBits, setBit } from './bits.ts';

/** Never allocated: zero, or the parent's in a differencing image. */
export const UNALLOCATED = 0xffffffff;
/** Known to be zero. */
export const ZEROED = 0xfffffffe;

/** Whether an entry names a slot. */
export function isStored(entry: number): boolean {
  return entry < ZEROED;
}

export const ENTRY_BYTES = 4;
/** Entries that are written together: 4 KiB. */
const PAGE_ENTRIES = 1024;

/** Reads the whole map (V-14); the caller has checked that the file holds it. */
export async function readMap(file: Child, offset: number, blocks: number): Promise<Uint32Array> {
  const map = new Uint32Array(blocks);
  const bytes = new Uint8Array(map.buffer);
  if (blocks > 0 && !file.tryReadNow(offset, bytes)) await file.read(offset, bytes);
  swapU32OnBigEndian(map);
  return map;
}

/** Entries `from` to before `to` as they are stored. */
export function mapBytes(map: Uint32Array, from: number, to: number): Uint8Array {
  const part = map.slice(from, to);
  swapU32OnBigEndian(part);
  return new Uint8Array(part.buffer);
}

/** Half-open range of entries. */
export interface EntryRange {
  readonly from: number;
  readonly to: number;
}

export class DirtyPages {
  any = false;
  #bits: Bits;
  #pages: number;

  constructor(entries: number) {
    this.#pages = Math.ceil(entries / PAGE_ENTRIES);
    this.#bits = newBits(this.#pages);
  }

  /** The map has another length from now on; nothing is dirty. */
  reset(entries: number): void {
    this.#pages = Math.ceil(entries / PAGE_ENTRIES);
    this.#bits = newBits(this.#pages);
    this.any = false;
  }

  mark(entry: number): void {
    setBit(this.#bits, Math.floor(entry / PAGE_ENTRIES));
    this.any = true;
  }

  /** Runs of dirty pages of a map with so many entries, ascending; afterwards all are clean. */
  take(entries: number): EntryRange[] {
    const runs: EntryRange[] = [];
    if (!this.any) return runs;
    for (let page = findBit(this.#bits, true, 0, this.#pages); page >= 0; ) {
      const clean = findBit(this.#bits, false, page, this.#pages);
      const end = clean < 0 ? this.#pages : clean;
      runs.push({ from: page * PAGE_ENTRIES, to: Math.min(entries, end * PAGE_ENTRIES) });
      page = findBit(this.#bits, true, end, this.#pages);
    }
    this.#bits.fill(0);
    this.any = false;
    return runs;
  }

  /** Marks again what {@link take} gave, since it could not be written. */
  putBack(runs: readonly EntryRange[]): void {
    for (const { from, to } of runs) for (let entry = from; entry < to; entry += PAGE_ENTRIES) this.mark(entry);
  }
}
