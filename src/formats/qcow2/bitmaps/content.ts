/** A bitmap's content: from the image into memory, and into new clusters of the image (Q-BMP-2, Q-BMP-4, Q-BMP-6). */

import type { HierarchicalBitmap } from '../../../bitmaps/hierarchical-bitmap.ts';
import { alignUp } from '../../../bytes/align.ts';
import { setU64, viewOf } from '../../../bytes/big-endian.ts';
import { BlockError, codeOf, withErrno } from '../../../core/errors.ts';
import { allocateClusters } from '../free-space.ts';
import type { Qcow2Image } from '../image.ts';
import { writeMetadata } from '../metadata-io.ts';
import { MetadataClass } from '../overlap.ts';
import { reachOf, type StoredBitmap, tableEntriesFor } from './directory.ts';
import { addRange, type FileRange, rangesOf, readSoundTable, WORD_BYTES, Word } from './table.ts';

/** Bytes of data that are read or written at a time. */
const PIECE = 1 << 20;

/**
 * What all bitmaps of an image may take up, since no cluster belongs to two: else a small file could name one cluster
 * so often that memory does not hold what it stands for.
 */
export interface ReadingBudget {
  bytes: number;
}

/** Fills a clean bitmap. Resolves with what the stored one takes up. Throws BlockError. */
export async function readBitmap(
  image: Qcow2Image,
  stored: StoredBitmap,
  content: HierarchicalBitmap,
  budget: ReadingBudget,
): Promise<FileRange[]> {
  const { clusterSize } = image.layout;
  try {
    if (stored.tableEntries !== Math.max(1, tableEntriesFor(content.size, content.granularity, clusterSize))) {
      throw new BlockError('EINVAL', 'The table is not as long as it must be');
    }
    spend(budget, alignUp(stored.tableEntries * WORD_BYTES, clusterSize));
  } catch (error) {
    throw unreadable(image, stored, error);
  }
  const words = await readSoundTable(image, stored);
  try {
    await readData(image, words, content, budget);
  } catch (error) {
    throw unreadable(image, stored, error);
  }
  return rangesOf(stored, words, clusterSize);
}

function unreadable(image: Qcow2Image, { name }: StoredBitmap, cause: unknown): BlockError {
  return withErrno(codeOf(cause), `Could not read bitmap '${name}' from image`, { node: image.node, cause });
}

function spend(budget: ReadingBudget, bytes: number): void {
  budget.bytes -= bytes;
  if (budget.bytes < 0) throw new BlockError('EINVAL', 'Bitmaps share clusters');
}

async function readData(
  { file, layout }: Qcow2Image,
  words: Float64Array,
  content: HierarchicalBitmap,
  budget: ReadingBudget,
): Promise<void> {
  const { clusterSize } = layout;
  const reach = reachOf(content.granularity, clusterSize);
  const end = alignUp(file.length(), clusterSize);
  for (let index = 0; index < words.length; ) {
    const word = words[index] ?? Word.allZeroes;
    let count = 1;
    if (word === Word.allZeroes) {
      index++;
      continue;
    }
    if (word !== Word.allOnes) {
      while ((count + 1) * clusterSize <= PIECE && words[index + count] === word + count * clusterSize) count++;
      spend(budget, count * clusterSize);
      if (word + count * clusterSize > end) throw new BlockError('EIO', 'Data lie beyond the end of the image file');
    }
    const start = index * reach;
    const length = Math.max(0, Math.min(content.size, start + count * reach) - start);
    if (word === Word.allOnes) content.set(start, length);
    else {
      const bytes = new Uint8Array(content.serialisedLength(start, length));
      await file.read(word, bytes);
      content.deserialise(start, length, bytes);
    }
    index += count;
  }
}

/** Where new data and tables are, so that they can be given back. */
export interface WrittenBitmap extends Pick<StoredBitmap, 'tableOffset' | 'tableEntries'> {
  readonly ranges: FileRange[];
}

/**
 * Writes content into new clusters, all that is allocated being noted in `taken` too, also when it throws BlockError. What
 * is clean or dirty as a whole takes no cluster. Not durable.
 */
export async function writeBitmap(
  image: Qcow2Image,
  content: HierarchicalBitmap,
  taken: FileRange[],
): Promise<WrittenBitmap> {
  const { clusterSize } = image.layout;
  const reach = reachOf(content.granularity, clusterSize);
  const tableEntries = Math.max(1, tableEntriesFor(content.size, content.granularity, clusterSize));
  const table = new Uint8Array(tableEntries * WORD_BYTES);
  const ranges: FileRange[] = [];
  const allocate = async (clusters: number) => {
    const offset = await allocateClusters(image.refcounts, clusters);
    addRange(ranges, offset, clusters * clusterSize);
    addRange(taken, offset, clusters * clusterSize);
    return offset;
  };
  const endOf = (index: number) => Math.min(content.size, (index + 1) * reach);
  const isMixed = (index: number) =>
    index < tableEntries &&
    content.nextDirty(index * reach, endOf(index)) >= 0 &&
    content.nextClean(index * reach, endOf(index)) >= 0;
  for (let at = content.nextDirty(0); at >= 0; ) {
    const index = Math.floor(at / reach);
    let count = 1;
    if (!isMixed(index)) setU64(viewOf(table), index * WORD_BYTES, Word.allOnes);
    else {
      while ((count + 1) * clusterSize <= PIECE && isMixed(index + count)) count++;
      const offset = await allocate(count);
      const bytes = new Uint8Array(count * clusterSize);
      bytes.set(content.serialise(index * reach, endOf(index + count - 1) - index * reach));
      await writeMetadata(image, MetadataClass.bitmapData, offset, bytes);
      for (let i = 0; i < count; i++) setU64(viewOf(table), (index + i) * WORD_BYTES, offset + i * clusterSize);
    }
    const next = (index + count) * reach;
    at = next < content.size ? content.nextDirty(next) : -1;
  }
  const tableOffset = await allocate(alignUp(table.length, clusterSize) / clusterSize);
  await writeMetadata(image, MetadataClass.bitmapData, tableOffset, table);
  return { tableOffset, tableEntries, ranges };
}
