/** What is wrong with a map, found when it is read (V-15): entries that name a place outside the file, or one twice. */
import { type Bits, hasBit, newBits, setBit } from './bits.ts';
import type { VdiHeader } from './header.ts';
import { isStored } from './map.ts';

/** How many whole slots a file of this length holds, at most as many as there are blocks. */
export function slotsHeld(header: VdiHeader, fileLength: number): number {
  const stride = header.blockSize + header.blockExtra;
  return Math.max(0, Math.min(header.blocks, Math.floor((fileLength - header.dataOffset) / stride)));
}

export interface MapScan {
  /** Slots that the file holds whole. */
  readonly held: number;
  /** Those of them that are named, one bit each, and how many there are. */
  readonly taken: Bits;
  readonly count: number;
  /** One more than the highest of them. */
  readonly end: number;
  /** Slots that several blocks name. */
  readonly shared: Bits | undefined;
  /** How many stored blocks do not lie behind the stored one before them. */
  readonly fragmented: number;
  /** How many entries are wrong, and the block of the first. */
  readonly wrong: number;
  readonly firstWrong: number;
}

/** One pass over the map. Memory is by what the file can hold, whatever the entries say. */
export function scanMap(map: Uint32Array, header: VdiHeader, fileLength: number): MapScan {
  const held = slotsHeld(header, fileLength);
  const taken = newBits(held);
  let shared: Bits | undefined;
  let count = 0;
  let end = 0;
  let fragmented = 0;
  let expected = -1;
  let wrong = 0;
  let firstWrong = -1;
  for (let block = 0; block < map.length; block++) {
    const slot = map[block] as number;
    if (!isStored(slot)) continue;
    if (slot < held && !hasBit(taken, slot)) {
      setBit(taken, slot);
      count++;
      if (slot >= end) end = slot + 1;
      if (slot !== expected && expected >= 0) fragmented++;
      expected = slot + 1;
      continue;
    }
    if (slot < held) {
      shared ??= newBits(held);
      setBit(shared, slot);
    }
    if (wrong++ === 0) firstWrong = block;
  }
  return { held, taken, count, end, shared, fragmented, wrong, firstWrong };
}

/** Whether several blocks name `slot`. */
export function isShared(shared: Bits | undefined, slot: number): boolean {
  return shared !== undefined && hasBit(shared, slot);
}
