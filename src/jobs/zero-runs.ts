/** Which parts of a buffer are worth writing (T-CONV-4). */
import { alignDown, alignUp } from '../bytes/align.ts';
import { isZero, splitZeroes, type ZeroRun } from '../bytes/zero.ts';

export interface SparseRule {
  /** Zero runs of at least this many bytes are not stored; shorter ones are data. */
  readonly minimum: number;
  /** Writes begin and end at multiples of this, a power of two not above `minimum` unless the target needs it. */
  readonly granularity: number;
}

/** The rule for runs of `sparseSize` bytes (over 0) on a target that wants requests aligned to `requestAlign`. */
export function sparseRule(sparseSize: number, requestAlign: number): SparseRule {
  const granularity = Math.max(2 ** Math.floor(Math.log2(sparseSize)), requestAlign);
  return { minimum: sparseSize, granularity };
}

/**
 * Runs of zeroes and data in `bytes`, which lie at `position` of the disk; offsets are relative to `bytes`.
 * A buffer that is zero throughout is one zero run, however short.
 */
export function sparseRuns(bytes: Uint8Array, position: number, rule: SparseRule): ZeroRun[] {
  const { granularity, minimum } = rule;
  const head = Math.min(bytes.length, alignUp(position, granularity) - position);
  const runs = splitZeroes(head === 0 ? bytes : bytes.subarray(head), granularity).map((run) =>
    head === 0 ? run : { ...run, offset: run.offset + head },
  );
  if (head > 0) runs.unshift({ offset: 0, length: head, zero: isZero(bytes, 0, head) });
  return merge(runs, Math.min(minimum, bytes.length));
}

/** Turns zero runs that are too short into data, and joins neighbours of one kind. */
function merge(runs: readonly ZeroRun[], minimum: number): ZeroRun[] {
  const merged: ZeroRun[] = [];
  for (const { offset, length, zero } of joined(runs)) {
    const asZero = zero && length >= minimum;
    const last = merged.at(-1);
    if (last === undefined || last.zero !== asZero) merged.push({ offset, length, zero: asZero });
    else merged[merged.length - 1] = { ...last, length: last.length + length };
  }
  return merged;
}

function joined(runs: readonly ZeroRun[]): ZeroRun[] {
  const result: ZeroRun[] = [];
  for (const run of runs) {
    const last = result.at(-1);
    if (last === undefined || last.zero !== run.zero) result.push(run);
    else result[result.length - 1] = { ...last, length: last.length + run.length };
  }
  return result;
}

/** The end of a piece that starts at `offset`: the next multiple of `chunk` (which writes then end at), or `end`. */
export function chunkEnd(offset: number, end: number, chunk: number): number {
  return Math.min(end, alignDown(offset, chunk) + chunk);
}
