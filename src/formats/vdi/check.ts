/** Looking for damage (V-45, V-46). What is found is told in lines for people, worded as other programs do where they do. */
import type { CheckOptions, CheckReport } from '../../core/driver.ts';
import { findBit } from './bits.ts';
import { slotsHeld } from './damage.ts';
import { type Findings, lookAtMap, noFindings } from './findings.ts';
import { isOldLayout } from './header.ts';
import type { VdiImage } from './image.ts';
import { repair } from './repair.ts';
import { SECTOR } from './validate.ts';

/** More findings than this are counted, not told one by one: a hostile map could name millions. */
const TOLD = 10_000;

export async function check(image: VdiImage, options: CheckOptions): Promise<CheckReport> {
  const mending = options.repair !== 'none';
  const total = image.map.length * image.blockSize;
  options.progress?.(0, total);
  options.signal?.throwIfAborted();
  const found = await look(image, options);
  const report: CheckReport = {
    corruptions: corruptions(found),
    leaks: found.leaks,
    checkErrors: 0,
    corruptionsFixed: 0,
    leaksFixed: 0,
    totalClusters: image.map.length,
    allocatedClusters: found.stored,
    fragmentedClusters: found.fragmented,
    imageEndOffset: image.startOf(Math.max(image.slots.end, Math.min(image.countOnDisk, image.map.length))),
  };
  if (mending && report.corruptions + report.leaks > 0) await repair(image, found, options, report);
  options.progress?.(total, total);
  return report;
}

function corruptions(found: Findings): number {
  const entries = found.tooLarge.length + found.beyondEnd.length + found.shared.length;
  return entries + (found.countWrong ? 1 : 0) + (found.geometryWrong ? 1 : 0);
}

/** Tells findings until there have been too many of them. */
function teller(options: CheckOptions): (line: string) => void {
  let told = 0;
  return (line) => {
    told++;
    if (told <= TOLD) options.finding(line);
    else if (told === TOLD + 1) options.finding('More findings follow that are not told one by one');
  };
}

async function look(image: VdiImage, options: CheckOptions): Promise<Findings> {
  const tell = teller(options);
  const corrupt = (text: string) => tell(`ERROR: ${text}`);
  const held = slotsHeld(image.header, image.file.length());
  const found = noFindings();
  const { inRange, distinct, end } = lookAtMap(image, found, held, corrupt);
  found.stored = distinct;
  lookAtHeader(image, found, { inRange, end, held }, corrupt, tell);
  found.leaks = await leakedSlots(image, found, held, tell);
  return found;
}

/**
 * The count is right when it covers every slot that is named, and more than those only by slots that the file has: blocks
 * that were stored or discarded when a crash or the end of a session came, which are leaks (V-25).
 */
function lookAtHeader(
  image: VdiImage,
  found: Findings,
  { inRange, end, held }: { inRange: number; end: number; held: number },
  corrupt: (text: string) => void,
  note: (text: string) => void,
): void {
  const { header } = image;
  const entriesWrong = found.tooLarge.length + found.beyondEnd.length + found.shared.length > 0;
  const count = image.countOnDisk;
  const mayLeak = !entriesWrong && count > inRange && count >= end && count <= held;
  if (count !== inRange && !mayLeak) {
    corrupt(`allocated blocks mismatch, is ${inRange}, should be ${count}`);
    found.countWrong = true;
  }
  const { logicalGeometry } = header;
  if (logicalGeometry !== undefined && logicalGeometry.sectorSize !== SECTOR) {
    corrupt(`logical geometry has sectors of ${logicalGeometry.sectorSize} bytes, should be ${SECTOR}`);
    found.geometryWrong = true;
  }
  if (Number(header.diskSize) % SECTOR !== 0) {
    note(`Disk size ${header.diskSize} is no multiple of ${SECTOR}; the disk is used up to ${image.length}`);
  }
  if (!isOldLayout(header) && header.headerSize < 0x180) note(`Header size ${header.headerSize} is below 384`);
}

/** Slots that the file or the count has and no entry names; runs of them are told. */
async function leakedSlots(
  image: VdiImage,
  { taken, stored }: Findings,
  held: number,
  tell: (line: string) => void,
): Promise<number> {
  if (held === stored) return 0;
  // A device is as long as it is: what lies behind the counted slots is nobody's.
  const end = (await isDevice(image)) ? Math.min(held, image.countOnDisk) : held;
  let leaks = 0;
  for (let slot = findBit(taken, false, 0, end); slot >= 0; ) {
    const next = findBit(taken, true, slot, end);
    const stop = next < 0 ? end : next;
    leaks += stop - slot;
    tell(stop - slot === 1 ? `Leaked block ${slot}` : `Leaked blocks ${slot} to ${stop - 1}`);
    slot = findBit(taken, false, stop, end);
  }
  return leaks;
}

async function isDevice({ host, file }: VdiImage): Promise<boolean> {
  const kind = await host.files.stat(file.filename()).then(
    (found) => found.kind,
    () => 'regular',
  );
  return kind === 'block' || kind === 'character';
}
