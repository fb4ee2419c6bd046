/** The part of a comparison that the host does by itself, on several processors: where both disks are plainly in its files. */
import { filePlace } from '../core/bulk.ts';
import type { Disk } from '../core/disk.ts';
import type { BulkComparePiece, BulkLanes, FilePlace } from '../core/host-bulk.ts';
import { BATCH } from './bulk-lanes.ts';

/** A range to be read of one disk, which should be zero, or of two, which should be equal. */
export interface ComparedPiece {
  readonly offset: number;
  readonly length: number;
  readonly stored: readonly Disk[];
}

export interface BulkCompareOptions<P extends ComparedPiece> {
  readonly lanes: BulkLanes;
  next(): Promise<P | undefined>;
  /** The same at once, where nothing need be waited for. */
  nextNow(): P | undefined | 'unknown';
  /** Takes back pieces that are not found equal. */
  putBack(pieces: readonly P[]): void;
  /** Called for each piece that is equal. */
  advance(piece: P): void;
  readonly signal: AbortSignal | undefined;
}

/** Compares from the next piece on as far as it goes: up to a difference, trouble, or what is not plainly in files. */
export async function compareInBulk<P extends ComparedPiece>(options: BulkCompareOptions<P>): Promise<void> {
  const { lanes, signal, advance, putBack } = options;
  let over = false;
  while (!over) {
    const given: P[] = [];
    const give = (piece: P | undefined): BulkComparePiece | undefined => {
      const plain = piece && plainPiece(piece, lanes);
      if (piece !== undefined && plain !== undefined) given.push(piece);
      else {
        over = true;
        if (piece !== undefined) putBack([piece]);
      }
      return plain;
    };
    const next = () => {
      const piece = options.nextNow();
      // What cannot be planned is found out, and told, by who plans on.
      return piece === 'unknown' ? options.next().then(give, () => give(undefined)) : give(piece);
    };
    let told = 0;
    const progress = (count: number) => {
      for (; told < count; told++) advance(given[told] as P);
    };
    const done = await lanes.compare({ most: BATCH, next }, { signal, progress });
    putBack(given.slice(done));
    signal?.throwIfAborted();
    if (done < given.length) return;
  }
}

function plainPiece({ offset, length, stored }: ComparedPiece, lanes: BulkLanes): BulkComparePiece | undefined {
  const [a, b] = stored;
  const from = a && placeOf(a, offset, length, lanes);
  const other = b && placeOf(b, offset, length, lanes);
  if (from === undefined || (b !== undefined && other === undefined)) return undefined;
  return { from, length, other };
}

function placeOf(disk: Disk, offset: number, length: number, lanes: BulkLanes): FilePlace | undefined {
  const place = disk.maySkipRequests ? filePlace(disk.node, offset, length) : undefined;
  return place && lanes.reaches(place.file) ? place : undefined;
}
