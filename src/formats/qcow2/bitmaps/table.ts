/** A bitmap's table: a word for each cluster of its data (Q-BMP-2); reading it, and finding out what it takes up. */
import { alignUp } from '../../../bytes/align.ts';
import { viewOf } from '../../../bytes/big-endian.ts';
import { BlockError, codeOf, withErrno } from '../../../core/errors.ts';
import type { Qcow2Image } from '../image.ts';
import { offsetOf } from '../tables.ts';
import type { StoredBitmap } from './directory.ts';

/** Bytes of the image file. */
export interface FileRange {
  readonly offset: number;
  length: number;
}

export const WORD_BYTES = 8;
/** A word that is no offset. */
export const Word = { allZeroes: 0, allOnes: 1, bad: -1 } as const;
/** Bytes of a table that are read at a time. */
const PIECE = 1 << 20;

/** What a word says: an offset, or one of {@link Word}. */
function decodeWord(high: number, low: number, clusterSize: number): number {
  const offset = offsetOf(high, low);
  const isReserved = (high & 0xff000000) !== 0 || (low & 0x1fe) !== 0;
  if (isReserved || offset % clusterSize !== 0 || (offset !== 0 && (low & 1) !== 0)) return Word.bad;
  return offset === 0 ? low & 1 : offset;
}

/**
 * All words; some may be {@link Word.bad}, and offsets past the end of the file. Throws BlockError EIO for a table that the
 * file does not have.
 */
export async function readTable(image: Qcow2Image, { tableOffset, tableEntries }: StoredBitmap): Promise<Float64Array> {
  const { file, layout, node } = image;
  const length = tableEntries * WORD_BYTES;
  if (tableOffset + length > alignUp(file.length(), layout.clusterSize)) {
    throw new BlockError('EIO', `A table at host offset ${tableOffset} lies beyond the end of the image file`, {
      node,
    });
  }
  const words = new Float64Array(tableEntries);
  for (let done = 0; done < length; done += PIECE) {
    const piece = new Uint8Array(Math.min(PIECE, length - done));
    await file.read(tableOffset + done, piece);
    const view = viewOf(piece);
    for (let at = 0; at < piece.length; at += WORD_BYTES) {
      const word = decodeWord(view.getUint32(at), view.getUint32(at + 4), layout.clusterSize);
      words[(done + at) / WORD_BYTES] = word;
    }
  }
  return words;
}

/** The same; throws BlockError EINVAL where a word cannot be. */
export async function readSoundTable(image: Qcow2Image, bitmap: StoredBitmap): Promise<Float64Array> {
  const text = `Could not read bitmap_table table from image for bitmap '${bitmap.name}'`;
  let words: Float64Array;
  try {
    words = await readTable(image, bitmap);
  } catch (error) {
    throw withErrno(codeOf(error), text, { node: image.node, cause: error });
  }
  const bad = words.indexOf(Word.bad);
  if (bad < 0) return words;
  throw withErrno('EINVAL', text, { node: image.node, cause: new Error(`word ${bad} cannot be`) });
}

/** Where the table and the data are, whole clusters, one behind the other as far as they are. */
export function rangesOf({ tableOffset, tableEntries }: StoredBitmap, words: Float64Array, clusterSize: number) {
  const ranges: FileRange[] = [];
  addRange(ranges, tableOffset, alignUp(tableEntries * WORD_BYTES, clusterSize));
  for (const word of words) if (word > Word.allOnes) addRange(ranges, word, clusterSize);
  return ranges;
}

export function addRange(ranges: FileRange[], offset: number, length: number): void {
  const last = ranges.at(-1);
  if (last !== undefined && last.offset + last.length === offset) last.length += length;
  else ranges.push({ offset, length });
}
