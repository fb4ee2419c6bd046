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
  for (;;) {
    const { pieces, work } = await plainPieces(options);
    let told = 0;
    const progress = (count: number) => {
      for (; told < count; told++) if (pieces[told] !== undefined) advance(pieces[told] as P);
    };
    const reached = work.length > 0 && allReached(lanes, work);
    const done = reached ? await lanes.compare(work, { signal, progress }) : 0;
    signal?.throwIfAborted();
    if (done < pieces.length || done === 0) return putBack(pieces.slice(done));
  }
}

async function plainPieces<P extends ComparedPiece>({
  next,
  nextNow,
  putBack,
  signal,
}: BulkCompareOptions<P>): Promise<{ readonly pieces: P[]; readonly work: BulkComparePiece[] }> {
  const pieces: P[] = [];
  const work: BulkComparePiece[] = [];
  while (pieces.length < BATCH) {
    signal?.throwIfAborted();
    // What cannot be planned is found out, and told, by who plans on.
    let piece = nextNow();
    if (piece === 'unknown') piece = await next().catch(() => undefined);
    if (piece === undefined) break;
    const plain = plainPiece(piece);
    if (plain === undefined) {
      putBack([piece]);
      break;
    }
    pieces.push(piece);
    work.push(plain);
  }
  return { pieces, work };
}

function plainPiece({ offset, length, stored }: ComparedPiece): BulkComparePiece | undefined {
  const [a, b] = stored;
  const from = a && placeOf(a, offset, length);
  const other = b && placeOf(b, offset, length);
  if (from === undefined || (b !== undefined && other === undefined)) return undefined;
  return { from, length, other };
}

function placeOf(disk: Disk, offset: number, length: number): FilePlace | undefined {
  return disk.maySkipRequests ? filePlace(disk.node, offset, length) : undefined;
}

function allReached(lanes: BulkLanes, work: readonly BulkComparePiece[]): boolean {
  return work.every(
    ({ from, other }) => lanes.reaches(from.file) && (other === undefined || lanes.reaches(other.file)),
  );
}
