/** Looking for damage and mending it (V-45, V-46). */
import type { CheckOptions, CheckReport } from '../../core/driver.ts';
import { Bits, Damage } from './damage.ts';
import type { VdiImage } from './image.ts';
import { isStored, UNALLOCATED } from './map.ts';
import { fillHoles, moveBlocks } from './move.ts';
import { loadSlots } from './slots.ts';
import type { WriteBack } from './write-back.ts';

interface Findings {
  corruptions: number;
  leaks: number;
  /** Entries that name no place an image of this size and this file can have. */
  readonly outside: number[];
  /** Blocks whose place another block, before them, has too. */
  readonly shared: number[];
  /** Whether the header's count is below what is stored. */
  countWrong: boolean;
}

/** More findings than this are counted, not told one by one: a hostile map could name millions. */
const TOLD = 1000;

export async function check(image: VdiImage, writeBack: WriteBack, options: CheckOptions): Promise<CheckReport> {
  const found = look(image, options);
  const report: CheckReport = {
    corruptions: found.corruptions,
    leaks: found.leaks,
    checkErrors: 0,
    corruptionsFixed: 0,
    leaksFixed: 0,
  };
  if (options.repair === 'none' || (found.corruptions === 0 && found.leaks === 0)) return report;
  await repair(image, writeBack, found, options, report);
  return report;
}

function look(image: VdiImage, options: CheckOptions): Findings {
  const { map, header, file } = image;
  const inFile = Math.floor(Math.max(0, file.length() - image.dataOffset) / image.stride);
  const used = new Bits(Math.min(inFile, map.length));
  const found: Findings = { corruptions: 0, leaks: 0, outside: [], shared: [], countWrong: false };
  let counted = 0;
  let distinct = 0;
  let distinctCounted = 0;
  const corrupt = (line: string) => {
    found.corruptions++;
    if (found.corruptions <= TOLD) options.finding(`ERROR: ${line}`);
  };
  for (let block = 0; block < map.length; block++) {
    const slot = map[block] ?? UNALLOCATED;
    if (!isStored(slot)) continue;
    if (slot >= map.length) {
      corrupt(`block index ${block} too large, is ${slot}`);
      found.outside.push(block);
      continue;
    }
    counted++;
    if (slot >= inFile) {
      corrupt(`block index ${block} beyond the end of the file, is ${slot}`);
      found.outside.push(block);
    } else if (used.has(slot)) {
      corrupt(`block index ${slot} also used by ${slot}`);
      found.shared.push(block);
    } else {
      used.add(slot);
      distinct++;
      if (slot < header.allocated) distinctCounted++;
    }
  }
  // Places that were taken before the map could name them, or given up after it no longer did, are leaks (V-25).
  const unused = header.allocated - distinctCounted;
  if (header.allocated < counted || (found.corruptions > 0 && header.allocated !== counted + unused)) {
    found.countWrong = true;
    corrupt(`allocated blocks mismatch, is ${counted}, should be ${header.allocated}`);
  }
  found.leaks = Math.max(inFile, Math.min(header.allocated, map.length)) - distinct;
  if (found.leaks > 0) options.finding(`Leaked blocks: ${found.leaks}`);
  if (Number(header.diskSize) % 512 !== 0) {
    options.finding(`The disk size ${header.diskSize} is no multiple of 512; the disk is used up to the next one`);
  }
  return found;
}

async function repair(
  image: VdiImage,
  writeBack: WriteBack,
  found: Findings,
  options: CheckOptions,
  report: CheckReport,
): Promise<void> {
  const entriesBad = found.outside.length + found.shared.length;
  if (entriesBad > 0 && options.repair !== 'all') {
    // Which places are free is not known while the map is in doubt.
    return;
  }
  image.touch();
  for (const block of found.outside) {
    options.finding(`Repairing block ${block}: its data are not in the file, it reads as zeroes now`);
    image.setEntry(block, UNALLOCATED);
  }
  rescan(image);
  await separate(image, writeBack, found.shared, options);
  report.corruptionsFixed = found.corruptions;
  image.headerDirty = true;
  image.countOnDisk = image.slots.next;
  await writeBack.flush();
  await reclaim(image, writeBack, options);
  report.leaksFixed = found.leaks;
}

/** Blocks that share a place each get a copy of their own; which of them it belonged to cannot be known. */
async function separate(
  image: VdiImage,
  writeBack: WriteBack,
  shared: readonly number[],
  options: CheckOptions,
): Promise<void> {
  const { slots } = image;
  const moves = shared.map((block) => {
    const from = image.entry(block);
    options.finding(`Repairing block ${block}: it gets a copy of its own of block index ${from}`);
    return { block, from, to: slots.takeFree() ?? slots.next++ };
  });
  if (moves.length === 0) return;
  await moveBlocks(image, writeBack, moves, () => {}, options.signal);
  // The moves gave the shared places up, which their first users still have.
  rescan(image);
}

function rescan(image: VdiImage): void {
  const { map, header, file } = image;
  image.damage = new Damage({
    map,
    header,
    fileLength: Math.max(file.length(), image.endOf(image.slots.next - 1)),
    salvage: false,
  });
  loadSlots(image.slots, map, image.damage.slotsUsed);
}

/** Moves the last blocks into unused places, so that the file can end behind the last one in use. */
async function reclaim(image: VdiImage, writeBack: WriteBack, options: CheckOptions): Promise<void> {
  const { slots, file } = image;
  await fillHoles(image, writeBack, { signal: options.signal });
  const end = image.dataOffset + slots.next * image.stride;
  if (file.length() > end) await file.truncate(end, { shrink: true });
  await file.flush();
}
