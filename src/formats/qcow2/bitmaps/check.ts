/** Bitmaps in a check: what they take up is counted, what cannot be is told of and mended (Q-CHK-1, Q-CHK-3). */
import type { CheckOptions, CheckReport } from '../../../core/driver.ts';
import { BlockError } from '../../../core/errors.ts';
import { clustersOf, use, type Walk } from '../check-walk.ts';
import { Autoclear } from '../header.ts';
import type { Qcow2Image } from '../image.ts';
import { writeMetadata } from '../metadata-io.ts';
import { MetadataClass } from '../overlap.ts';
import { changeHeader } from '../write-header.ts';
import { BitmapFlag, recordBytes, type StoredBitmap, tableEntriesFor } from './directory.ts';
import { readTable, WORD_BYTES, Word } from './table.ts';

/** Of a record. */
const FLAGS_AT = 12;

export async function walkBitmaps(walk: Walk): Promise<void> {
  const { image, report } = walk;
  const { extensions, bitmaps, layout } = image;
  const directory = extensions.bitmaps;
  if (directory === undefined) return;
  const isThere = Number(directory.directoryOffset) + Number(directory.directorySize) <= Number.MAX_SAFE_INTEGER;
  if (isThere) use(walk, Number(directory.directoryOffset), Number(directory.directorySize));
  if (bitmaps.broken !== undefined) {
    walk.tell(`ERROR ${bitmaps.broken.message}`);
    report.corruptions++;
    report.checkErrors++;
    return;
  }
  for (const bitmap of bitmaps.stored) {
    walk.signal?.throwIfAborted();
    use(walk, bitmap.tableOffset, bitmap.tableEntries * WORD_BYTES);
    const words = await wordsOf(image, bitmap);
    if (words === undefined) {
      report.checkErrors++;
      continue;
    }
    const problem = lengthProblem(image, bitmap);
    if (problem !== undefined) {
      walk.tell(`ERROR ${problem}`);
      report.corruptions++;
    }
    // Of one that is in use, nobody reads what they name.
    const isRead = (bitmap.flags & BitmapFlag.inUse) === 0;
    for (const [index, word] of words.entries()) {
      if (word === Word.bad && isRead) {
        walk.tell(`ERROR bitmap '${bitmap.name}' table entry ${index} cannot be`);
        report.corruptions++;
      } else if (word > Word.allOnes && (isRead || word < image.file.length())) use(walk, word, layout.clusterSize);
    }
  }
}

/** One that is in use may be as long as the disk was. */
function lengthProblem({ layout, length }: Qcow2Image, bitmap: StoredBitmap): string | undefined {
  const { name, granularity, tableEntries, flags } = bitmap;
  const needed = Math.max(1, tableEntriesFor(length, granularity, layout.clusterSize));
  if ((flags & BitmapFlag.inUse) !== 0 || tableEntries === needed) return undefined;
  return `bitmap '${name}' has a table of ${tableEntries} entries instead of ${needed}`;
}

/** Undefined where the table cannot be read. */
async function wordsOf(image: Qcow2Image, bitmap: StoredBitmap): Promise<Float64Array | undefined> {
  try {
    return await readTable(image, bitmap);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return undefined;
  }
}

/**
 * Before counts are compared, and so without taking clusters: a bitmap with table entries that cannot be becomes
 * inconsistent, and a directory with which nothing can be done is given up, with all bitmaps.
 */
export async function mendBitmaps(image: Qcow2Image, report: CheckReport, { finding }: CheckOptions): Promise<void> {
  const { bitmaps, extensions } = image;
  if (extensions.bitmaps === undefined) return;
  if (bitmaps.broken !== undefined) return dropAll(image, report, finding, bitmaps.broken.message);
  if (isElsewhereUsed(image, extensions.bitmaps.directoryOffset, extensions.bitmaps.directorySize)) {
    return dropAll(image, report, finding, 'Bitmap directory overlaps other metadata');
  }
  let room = clustersOf(image);
  for (const [index, bitmap] of bitmaps.stored.entries()) {
    const words = await wordsOf(image, bitmap);
    const name = `bitmap '${bitmap.name}'`;
    if (words === undefined) {
      return dropAll(image, report, finding, `${name} has a table that cannot be read`);
    }
    const isBad = (word: number) =>
      word === Word.bad ||
      (word > Word.allOnes && (word >= image.file.length() || isElsewhereUsed(image, word, image.layout.clusterSize)));
    // More than there are: clusters that several bitmaps name.
    room -= words.filter((word) => word > Word.allOnes && !isBad(word)).length + 1;
    const bad = words.findIndex(isBad);
    const shared = room < 0 ? `${name} shares clusters` : undefined;
    const isLost = isElsewhereUsed(image, bitmap.tableOffset, bitmap.tableEntries * WORD_BYTES);
    const lost = isLost ? `${name} has its table where other metadata are` : undefined;
    const inside = bad < 0 ? (lengthProblem(image, bitmap) ?? shared) : `${name} table entry ${bad} cannot be`;
    const problem = lost ?? inside;
    if (problem === undefined || (bitmap.flags & BitmapFlag.inUse) !== 0) continue;
    finding(`Repairing ${problem}: the bitmap is inconsistent`);
    await outdate(image, index);
    report.corruptionsFixed++;
  }
  await image.file.flush();
}

/** Whether other metadata lie there too. */
export function isElsewhereUsed({ metadata }: Qcow2Image, offset: number | bigint, length: number | bigint): boolean {
  const own = MetadataClass.bitmapDirectory | MetadataClass.bitmapData;
  return metadata.classesIn(Number(offset), Number(length), ~own) !== 0;
}

/** In place: a record's flags are in one sector. Durable. */
async function outdate(image: Qcow2Image, index: number): Promise<void> {
  const { bitmaps, extensions, file } = image;
  const bitmap = bitmaps.stored[index];
  if (bitmap === undefined || (bitmap.flags & BitmapFlag.inUse) !== 0) return;
  const sizes = bitmaps.stored
    .slice(0, index)
    .map(({ nameBytes, extra }) => recordBytes(nameBytes.length, extra.length));
  const at = Number(extensions.bitmaps?.directoryOffset) + sizes.reduce((sum, size) => sum + size, 0) + FLAGS_AT;
  const flags = bitmap.flags | BitmapFlag.inUse;
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, flags);
  await writeMetadata(image, MetadataClass.bitmapDirectory, at, bytes);
  await file.flush();
  bitmaps.stored = bitmaps.stored.with(index, { ...bitmap, flags });
}

async function dropAll(
  image: Qcow2Image,
  report: CheckReport,
  finding: CheckOptions['finding'],
  why: string,
): Promise<void> {
  const { bitmaps, header, metadata, extensions } = image;
  const { directoryOffset = 0, directorySize = 0 } = extensions.bitmaps ?? {};
  metadata.remove(MetadataClass.bitmapDirectory, Number(directoryOffset), Number(directorySize));
  finding(`Repairing ${why}: all bitmaps are dropped`);
  await changeHeader(image, { autoclear: header.autoclear & ~Autoclear.bitmaps }, { bitmaps: undefined });
  bitmaps.stored = [];
  bitmaps.broken = undefined;
  image.beforeChange = undefined;
  report.corruptionsFixed++;
}
