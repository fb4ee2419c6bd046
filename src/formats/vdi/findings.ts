/** What a check finds in a map (V-45, V-46). */
import { type Bits, hasBit, newBits, setBit } from './bits.ts';
import type { VdiImage } from './image.ts';
import { isStored } from './map.ts';

export interface Findings {
  /** Blocks whose entry is no number of a slot that an image of this size has. */
  readonly tooLarge: number[];
  /** Blocks whose slot is not wholly in the file. */
  readonly beyondEnd: number[];
  /** Blocks whose slot another block, before them, has too. */
  readonly shared: number[];
  countWrong: boolean;
  geometryWrong: boolean;
  /** Slots of the file that no entry names. */
  leaks: number;
  /** Blocks stored, and how many of them do not lie behind the one before. */
  stored: number;
  fragmented: number;
  taken: Bits;
}

export function noFindings(): Findings {
  return {
    tooLarge: [],
    beyondEnd: [],
    shared: [],
    countWrong: false,
    geometryWrong: false,
    leaks: 0,
    stored: 0,
    fragmented: 0,
    taken: newBits(0),
  };
}

/** One pass over the map, in order. `held`: slots that the file holds whole. */
export function lookAtMap(image: VdiImage, found: Findings, held: number, corrupt: (text: string) => void) {
  const { map, scan } = image;
  if (scan?.wrong === 0 && scan.held === held) {
    // All of this was seen when the image was opened, and nothing has changed.
    Object.assign(found, { taken: scan.taken, fragmented: scan.fragmented });
    return { inRange: scan.count, distinct: scan.count, end: scan.end };
  }
  const taken = newBits(held);
  found.taken = taken;
  let inRange = 0;
  let distinct = 0;
  let end = 0;
  let expected = -1;
  for (let block = 0; block < map.length; block++) {
    const slot = map[block] as number;
    if (!isStored(slot)) continue;
    if (slot >= map.length) {
      corrupt(`block index ${block} too large, is ${slot}`);
      found.tooLarge.push(block);
      continue;
    }
    inRange++;
    if (slot >= end) end = slot + 1;
    if (slot >= held) {
      corrupt(`block index ${block} beyond the end of the file, is ${slot}`);
      found.beyondEnd.push(block);
    } else if (hasBit(taken, slot)) {
      corrupt(`block index ${slot} also used by ${slot}`);
      found.shared.push(block);
    } else {
      setBit(taken, slot);
      distinct++;
      if (expected >= 0 && slot !== expected) found.fragmented++;
      expected = slot + 1;
    }
  }
  return { inRange, distinct, end };
}
