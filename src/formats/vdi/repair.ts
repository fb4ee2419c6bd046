/** Mending what a check has found (V-46). */
import type { CheckOptions, CheckReport } from '../../core/driver.ts';
import { slotsHeld } from './damage.ts';
import { type Findings, lookAtMap, noFindings } from './findings.ts';
import type { VdiImage } from './image.ts';
import { UNALLOCATED } from './map.ts';
import { closeGaps, type MoveOptions, moveBlocks } from './move.ts';
import { SECTOR } from './validate.ts';
import { alone, shrinkFile, writeBack } from './write-back.ts';

/**
 * Mends, and turns what was counted as found into what was fixed. Entries are changed only under `all`; while they are
 * wrong, which places are free is not known, and leaks stay.
 */
export async function repair(
  image: VdiImage,
  found: Findings,
  options: CheckOptions,
  report: CheckReport,
): Promise<void> {
  const entriesWrong = found.tooLarge.length + found.beyondEnd.length + found.shared.length > 0;
  if (entriesWrong && options.repair !== 'all') return;
  const steps = { signal: options.signal, moved: stepsOf(image, options) };
  await alone(image, async () => {
    image.touch();
    if (entriesWrong) await mendEntries(image, found, options, steps);
    if (found.geometryWrong) mendGeometry(image, options);
    if (found.countWrong) options.detail?.('Repairing the count of allocated blocks');
    image.headerDirty = true;
    await writeBack(image);
    await closeGaps(image, steps);
    await shrinkFile(image);
    await image.file.flush();
  });
  if (report.leaks > 0) options.detail?.(`Repairing leaks: the file ends at ${image.file.length()}`);
  report.corruptionsFixed = report.corruptions;
  report.leaksFixed = report.leaks;
  report.corruptions = 0;
  report.leaks = 0;
}

/** Told of each block that is moved: the image is done when all that are stored have been. */
function stepsOf(image: VdiImage, { progress }: CheckOptions): () => void {
  const total = image.map.length * image.blockSize;
  let moved = 0;
  return () => progress?.(Math.min(total, ++moved * image.blockSize), total);
}

/** Afterwards the map is sound, and durable. A crash on the way leaves no more wrong than there was. */
async function mendEntries(image: VdiImage, found: Findings, options: CheckOptions, steps: MoveOptions): Promise<void> {
  const { tooLarge, beyondEnd, shared } = (await completeLastSlot(image, found, options)) ? lookAgain(image) : found;
  const copies = [...shared];
  for (const block of shared) {
    options.finding(`Repairing block ${block}: it gets a copy of its own of what is at ${image.entry(block)}`);
  }
  for (const block of [...tooLarge, ...beyondEnd]) {
    const slot = image.entry(block);
    if (image.startOf(slot) + image.stride <= image.file.length()) {
      options.finding(`Repairing block ${block}: it is moved from ${slot} to a place that the map may name`);
      copies.push(block);
    } else {
      const now = image.isDifferencing ? 'shows what the parent has' : 'reads as zeroes';
      options.finding(`Repairing block ${block}: its place ${slot} is not in the file, so it ${now} now`);
      image.setEntry(block, UNALLOCATED);
    }
  }
  // Durable before the places they named are used for something else.
  await writeBack(image);
  const moves = copies.map((block) => ({ block, to: image.slots.takeAny() }));
  await moveBlocks(image, moves, { ...steps, keepSources: true });
  image.rescan();
}

function lookAgain(image: VdiImage): Findings {
  const held = slotsHeld(image.header, image.file.length());
  const found = noFindings();
  lookAtMap(image, found, held, () => {});
  return found;
}

/** A file cut short in a block in use is completed with zeroes, so that what is there of the block stays; whether it was. */
async function completeLastSlot(image: VdiImage, found: Findings, options: CheckOptions): Promise<boolean> {
  const { file, header } = image;
  const last = slotsHeld(header, file.length());
  const inUse = found.beyondEnd.some((block) => image.entry(block) === last);
  if (!inUse || image.position(last) >= file.length()) return false;
  options.finding(`Repairing block index ${last}: the part that is not in the file is zero now`);
  await file.truncate(image.startOf(last + 1));
  await file.flush();
  image.rescan();
  return true;
}

function mendGeometry(image: VdiImage, options: CheckOptions): void {
  options.finding('Repairing the logical geometry');
  const { logicalGeometry } = image.header;
  if (logicalGeometry !== undefined) image.header.logicalGeometry = { ...logicalGeometry, sectorSize: SECTOR };
}
