/** Discards and writes of zeroes: changes of entries, without data (Q-DISC). */
import { alignDown, alignUp } from '../../bytes/align.ts';
import type { ZeroFlags } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { maskOf } from './allocate.ts';
import type { CacheEntry } from './cache.ts';
import { type EntryWords, isStored, readEntry, releaseEntry, sameEntry, writeEntry } from './entries.ts';
import { Autoclear } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { sliceToChange } from './l2-tables.ts';
import { SUBCLUSTERS } from './layout.ts';
import { RELEASES_MAX, type ReleaseCause } from './releases.ts';
import { clusterKind, highWord, isCompressed, isCopied, Kind, lowWord, offsetOf } from './tables.ts';
import { flush } from './write-back.ts';

const EMPTY: EntryWords = { high: 0, low: 0, zero: 0, allocated: 0 };

/** A hint: whole clusters lose their storage; in a raw data file they become zero at least (Q-DISC-5). */
export async function discard(image: Qcow2Image, offset: number, length: number): Promise<void> {
  image.requireUsable();
  const { clusterSize, version } = image.layout;
  const end = offset + length;
  if (offset % clusterSize !== 0 || (end % clusterSize !== 0 && end !== image.length)) throw notWhole(image);
  if (version < 3 && image.hasBacking) {
    throw new BlockError('ENOTSUP', 'Discard would show the backing file', { node: image.node });
  }
  const raw = (image.header.autoclear & Autoclear.rawDataFile) !== 0n;
  // A raw data file holds what the disk reads, also when the second step fails.
  if (raw) await image.data.writeZeroes(offset, length, { unmap: image.settings.passDiscard.request });
  await insideGate(image, () => dropClusters(image, offset, end, 'request', false));
  if (!raw) await discardInDataFile(image, offset, length);
}

function notWhole(image: Qcow2Image): BlockError {
  return new BlockError('ENOTSUP', 'Only whole clusters can be discarded', { node: image.node });
}

/** Changes of entries go beside requests; what they release may need a flush, which waits for requests. */
async function insideGate(image: Qcow2Image, work: () => Promise<void>): Promise<void> {
  const { gate } = image;
  const ticket = gate.closed ? await gate.enterWhenOpen() : gate.enter();
  try {
    await work();
  } finally {
    gate.leave(ticket);
  }
  if (image.releases.count > RELEASES_MAX) await flush(image);
}

/** What a data file has there, which the image no longer refers to (Q-DISC-5). */
async function discardInDataFile(image: Qcow2Image, offset: number, length: number): Promise<void> {
  const { data, file, settings } = image;
  if (data !== file && settings.passDiscard.request) await data.discard(offset, length);
}

/**
 * Takes the clusters of a range out of the tables (Q-DISC-2). `full`: they show the backing file afterwards; else they read
 * as zeroes where they did not before.
 */
export function dropClusters(
  image: Qcow2Image,
  from: number,
  to: number,
  cause: ReleaseCause,
  full: boolean,
): Promise<void> {
  const { layout, settings } = image;
  const hasBacking = image.hasBacking;
  const empty: EntryWords = full || layout.version < 3 ? EMPTY : zeroEntry(image);
  return changeEntries(image, { from, to, skipsEmpty: full || !hasBacking }, (old) => {
    const kind = clusterKind(old.high, old.low, layout.hasDataFile);
    const isNothing = kind === Kind.unallocated && old.zero === 0;
    if (isNothing && (full || !hasBacking)) return { entry: old };
    const keeps = settings.discardNoUnref && !full && isStored(image, old);
    if (keeps) return { entry: keptZero(image, old) };
    return { entry: empty, cause };
  });
}

/**
 * Gives up what is stored in a range that is to be cut off. Before a backing file it reads as zeroes, as long as it is there;
 * version 2 has no such entries, and shows the backing file.
 */
export function cropClusters(image: Qcow2Image, from: number, to: number): Promise<void> {
  const { extended, hasDataFile, version } = image.layout;
  const empties = version < 3 || !image.hasBacking;
  return changeEntries(image, { from, to, skipsEmpty: true }, (old) => {
    const kind = clusterKind(old.high, old.low, hasDataFile);
    if (kind === Kind.unallocated && old.zero === 0) return { entry: old };
    if (empties) return { entry: EMPTY, cause: 'always' };
    // Subclusters without data show the backing file already.
    const zero = isCompressed(old.high) ? 0xffffffff : (old.zero | old.allocated) >>> 0;
    return { entry: extended ? { ...EMPTY, zero } : zeroEntry(image), cause: 'always' };
  });
}

/** Zeroes without storage. */
export function zeroEntry(image: Qcow2Image): EntryWords {
  return image.layout.extended ? { ...EMPTY, zero: 0xffffffff } : { ...EMPTY, low: lowWord(0, true) };
}

/** Zeroes that keep their storage. */
function keptZero({ layout }: Qcow2Image, { high, low }: EntryWords): EntryWords {
  if (layout.extended) return { high, low: lowWord(offsetOf(high, low)), zero: 0xffffffff, allocated: 0 };
  const host = offsetOf(high, low);
  return { ...EMPTY, high: highWord(host, isCopied(high)), low: lowWord(host, true) };
}

/** Makes a range read as zeroes (Q-DISC-4); aligned to subclusters, save at the disk's end. ENOTSUP: write them as data. */
export async function writeZeroes(image: Qcow2Image, offset: number, length: number, flags: ZeroFlags): Promise<void> {
  image.requireUsable();
  const { layout, header } = image;
  const { subclusterSize } = layout;
  const widens = flags.edgesAreZero === true;
  const end = offset + length;
  const from = widens ? alignDown(offset, subclusterSize) : offset;
  const to = widens || end === image.length ? alignUp(end, subclusterSize) : end;
  if (from % subclusterSize !== 0 || to % subclusterSize !== 0) throw notZeroable(image);
  if (layout.version < 3) {
    if (image.hasBacking) throw notZeroable(image);
    return insideGate(image, () => dropClusters(image, from, to, 'request', true));
  }
  if ((header.autoclear & Autoclear.rawDataFile) !== 0n)
    await image.data.writeZeroes(offset, length, { unmap: flags.unmap === true });
  await insideGate(image, () => zeroRange(image, from, to, flags.unmap === true));
}

function notZeroable(image: Qcow2Image): BlockError {
  return new BlockError('ENOTSUP', 'Zeroes cannot be written there without data', { node: image.node });
}

async function zeroRange(image: Qcow2Image, from: number, to: number, unmap: boolean): Promise<void> {
  const { clusterSize } = image.layout;
  const bodyFrom = Math.min(to, alignUp(from, clusterSize));
  const bodyTo = Math.max(bodyFrom, alignDown(to, clusterSize));
  if (from < bodyFrom) await zeroSubclusters(image, from, bodyFrom);
  const empty = zeroEntry(image);
  const body = { from: bodyFrom, to: bodyTo, skipsEmpty: false };
  await changeEntries(image, body, (old) => {
    const keeps = isStored(image, old) && (!unmap || image.settings.discardNoUnref);
    return keeps ? { entry: keptZero(image, old) } : { entry: empty, cause: 'request' };
  });
  if (bodyTo < to) await zeroSubclusters(image, bodyTo, to);
}

/** A part of one cluster. */
function zeroSubclusters(image: Qcow2Image, from: number, to: number): Promise<void> {
  const { clusterSize, subclusterSize } = image.layout;
  const start = alignDown(from, clusterSize);
  const mask = maskOf((from - start) / subclusterSize, Math.min(SUBCLUSTERS, (to - start) / subclusterSize));
  return changeEntries(image, { from: start, to: start + clusterSize, skipsEmpty: false }, (old) => {
    if (isCompressed(old.high)) throw notZeroable(image);
    return { entry: { ...old, zero: (old.zero | mask) >>> 0, allocated: (old.allocated & ~mask) >>> 0 } };
  });
}

interface EntryRange {
  /** Guest bytes; widened to whole clusters. */
  readonly from: number;
  readonly to: number;
  /** Leave out what has no L2 table. */
  readonly skipsEmpty: boolean;
}

interface EntryChange {
  readonly entry: EntryWords;
  /** Given: the storage of the old entry is given up. */
  readonly cause?: ReleaseCause;
}

/** Changes each entry of a range that is not empty, once nobody gives its cluster storage. */
async function changeEntries(
  image: Qcow2Image,
  { from, to, skipsEmpty }: EntryRange,
  change: (old: EntryWords) => EntryChange,
): Promise<void> {
  const { clusterSize, l2Reach } = image.layout;
  if (from >= to) return;
  for (let at = alignDown(from, clusterSize); at < to; ) {
    if (skipsEmpty && image.l1.l2Offset(Math.floor(at / l2Reach)) === 0) {
      at = alignDown(at, l2Reach) + l2Reach;
      continue;
    }
    const slice = await sliceToChange(image, at);
    const other = image.allocations.overlapping(at, at + clusterSize);
    if (other !== undefined) {
      await other.changed;
      continue;
    }
    at = changeSlice(image, slice, { from: at, to }, change);
  }
}

/** As far as the slice goes, or up to a cluster that someone is giving storage. Returns where it ended. */
function changeSlice(
  image: Qcow2Image,
  slice: CacheEntry,
  { from, to }: { readonly from: number; readonly to: number },
  change: (old: EntryWords) => EntryChange,
): number {
  const { clusterSize, entryBytes } = image.layout;
  const sliceReach = (image.l2.entryBytes / entryBytes) * clusterSize;
  const stop = Math.min(to, alignDown(from, sliceReach) + sliceReach);
  let at = from;
  for (; at < stop; at += clusterSize) {
    if (image.allocations.size > 0 && image.allocations.overlapping(at, at + clusterSize) !== undefined) break;
    const old = readEntry(image, slice, at);
    const { entry, cause } = change(old);
    if (sameEntry(entry, old)) continue;
    writeEntry(image, slice, at, entry);
    if (cause !== undefined) releaseEntry(image, old, cause);
  }
  return at;
}
