/** What is wrong with a map, found when it is read (V-15): entries that name a place outside the file, or one twice. */
import type { VdiHeader } from './header.ts';
import { isStored, UNALLOCATED } from './map.ts';

/** A bit for each of many things; made only when needed, sized by what the file can hold. */
export class Bits {
  readonly #words: Uint32Array;

  constructor(count: number) {
    this.#words = new Uint32Array(Math.ceil(count / 32));
  }

  has(index: number): boolean {
    return ((this.#words[index >>> 5] ?? 0) & (1 << (index & 31))) !== 0;
  }

  add(index: number): void {
    const word = index >>> 5;
    this.#words[word] = (this.#words[word] ?? 0) | (1 << (index & 31));
  }
}

export interface DamageScan {
  readonly map: Uint32Array;
  readonly header: VdiHeader;
  readonly fileLength: number;
  /** The file's last block may be cut short (V-63). */
  readonly salvage: boolean;
}

export class Damage {
  readonly #blocks: Bits | undefined;
  /** The first finding, for messages. */
  readonly first: string | undefined;
  /** One more than the highest slot that a sound entry names. */
  readonly slotsUsed: number;

  constructor({ map, header, fileLength, salvage }: DamageScan) {
    const stride = header.blockSize + header.blockExtra;
    const room = Math.max(0, fileLength - header.dataOffset);
    const whole = Math.floor(room / stride);
    const slotsHeld = Math.min(map.length, salvage && room % stride > header.blockExtra ? whole + 1 : whole);
    const used = new Bits(slotsHeld);
    let damaged: Bits | undefined;
    let twice: Bits | undefined;
    let highest = -1;
    let first: string | undefined;
    for (let block = 0; block < map.length; block++) {
      const slot = map[block] ?? UNALLOCATED;
      if (!isStored(slot)) continue;
      if (slot < slotsHeld && !used.has(slot)) {
        used.add(slot);
        if (slot > highest) highest = slot;
        continue;
      }
      damaged ??= new Bits(map.length);
      damaged.add(block);
      first ??= `block ${block}`;
      if (slot >= slotsHeld) continue;
      twice ??= new Bits(slotsHeld);
      twice.add(slot);
    }
    // Neither of two blocks that share a place is to be trusted.
    const doubtful = twice;
    const all = damaged;
    if (doubtful !== undefined && all !== undefined) {
      map.forEach((slot, block) => {
        if (slot < slotsHeld && doubtful.has(slot)) all.add(block);
      });
    }
    this.first = first;
    this.#blocks = all;
    this.slotsUsed = highest + 1;
  }

  get any(): boolean {
    return this.#blocks !== undefined;
  }

  isDamaged(block: number): boolean {
    return this.#blocks?.has(block) ?? false;
  }

  /** What is wrong with a damaged block. */
  describe(
    image: { readonly map: Uint32Array; readonly file: { length(): number }; endOf(slot: number): number },
    block: number,
  ): string {
    const slot = image.map[block] ?? 0;
    if (slot >= image.map.length)
      return `its place ${slot} is beyond the ${image.map.length} an image of this size has`;
    if (image.endOf(slot) > image.file.length()) return `its place ${slot} lies beyond the end of the file`;
    return `its place ${slot} is used by another block too`;
  }
}
