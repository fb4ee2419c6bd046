/** Operations on a disk as data: made from a seed, printed, cut down when they show a failure. */
import { SeededRandom } from '../bytes/random.ts';

/** A request, in bytes. */
export interface RangeOperation {
  readonly kind: 'write' | 'zero' | 'unmap' | 'discard' | 'read';
  readonly offset: number;
  readonly length: number;
  /** Of writes: what the bytes are made from. 0: zeroes. */
  readonly seed?: number;
  /** Reads and writes: try the way that does not wait first. */
  readonly now?: boolean;
  readonly fua?: boolean;
}

/** A step of a random sequence. */
export type DiskOperation =
  | RangeOperation
  | { readonly kind: 'together'; readonly operations: readonly RangeOperation[] }
  | { readonly kind: 'status'; readonly offset: number; readonly length: number }
  | { readonly kind: 'resize'; readonly length: number }
  | { readonly kind: 'flush' }
  | { readonly kind: 'check' }
  | { readonly kind: 'reopen' };

/** What random sequences are like. Bytes. */
export interface OperationPlan {
  readonly count: number;
  /** Bytes of the disk at first. */
  readonly length: number;
  /** Where requests like to begin and end: a block or cluster size. Default 4096. */
  readonly blockSize?: number;
  /** What offsets and lengths of all requests are multiples of. Default 1. */
  readonly align?: number;
  /** Longest request. Default two blocks and a half. */
  readonly longest?: number;
  /** Lengths the disk may get, multiples of `step`; absent: no resizing. */
  readonly resize?: { readonly min: number; readonly max: number; readonly step: number };
  /** Relative frequency by kind, where it is not the usual; 0: never. */
  readonly weights?: Partial<Record<DiskOperation['kind'], number>>;
}

const WEIGHTS: Record<DiskOperation['kind'], number> = {
  write: 30,
  zero: 6,
  unmap: 6,
  discard: 8,
  read: 12,
  together: 10,
  status: 6,
  resize: 3,
  flush: 5,
  check: 1,
  reopen: 3,
};

/** The bytes of a write. No two seeds share many. */
export function operationData(seed: number, length: number): Uint8Array {
  const data = new Uint8Array(length);
  if (seed !== 0) new SeededRandom(seed).fill(data);
  return data;
}

/** A sequence of operations. The same seed and plan always give the same. */
export function randomOperations(seed: number, plan: OperationPlan): DiskOperation[] {
  const random = new SeededRandom(seed);
  const weights = { ...WEIGHTS, ...(plan.resize === undefined ? { resize: 0 } : {}), ...plan.weights };
  const kinds = Object.entries(weights).flatMap(([kind, weight]) =>
    new Array<DiskOperation['kind']>(weight).fill(kind as DiskOperation['kind']),
  );
  const operations: DiskOperation[] = [];
  let { length } = plan;
  while (operations.length < plan.count) {
    const kind = random.pick(kinds);
    if (kind === 'resize' && plan.resize !== undefined) {
      const { min, max, step } = plan.resize;
      length = random.between(Math.ceil(min / step), Math.floor(max / step)) * step;
      operations.push({ kind, length });
    } else if (kind === 'flush' || kind === 'check' || kind === 'reopen') operations.push({ kind });
    else if (length === 0 || kind === 'resize') continue;
    else if (kind === 'status') operations.push({ kind, ...randomRange(random, plan, length, length) });
    else if (kind === 'together') {
      const some = Array.from({ length: random.between(2, 5) }, () =>
        rangeOperation(
          random.pick(['write', 'write', 'write', 'zero', 'unmap', 'discard', 'read']),
          random,
          plan,
          length,
        ),
      );
      operations.push({ kind, operations: some });
    } else operations.push(rangeOperation(kind, random, plan, length));
  }
  return operations;
}

function rangeOperation(
  kind: RangeOperation['kind'],
  random: SeededRandom,
  plan: OperationPlan,
  length: number,
): RangeOperation {
  const longest = plan.longest ?? Math.floor((plan.blockSize ?? 4096) * 2.5);
  const operation = { kind, ...randomRange(random, plan, length, longest) };
  if (kind === 'read') return { ...operation, now: random.chance(0.5) };
  if (kind !== 'write') return operation;
  const seed = random.chance(0.1) ? 0 : random.between(1, 0x7fffffff);
  return { ...operation, seed, now: random.chance(0.4), ...(random.chance(0.05) ? { fua: true } : {}) };
}

/** A range that likes block boundaries, sector boundaries, and odd places. */
function randomRange(
  random: SeededRandom,
  plan: OperationPlan,
  length: number,
  longest: number,
): { offset: number; length: number } {
  const block = plan.blockSize ?? 4096;
  const align = plan.align ?? 1;
  const snap = (value: number, unit: number) => Math.floor(value / unit) * unit;
  const place = () => {
    const unit = random.pick([block, block, 512, 1]);
    return Math.min(snap(snap(random.below(length + 1), Math.max(unit, align)), align), length);
  };
  const offset = Math.min(place(), Math.max(0, snap(length - 1, align)));
  const room = length - offset;
  const wanted = random.pick([block, block * 2, 512, random.between(1, longest), random.between(1, longest)]);
  const end = random.chance(0.3) ? place() - offset : wanted;
  const size = Math.min(Math.max(snap(end > 0 ? end : wanted, align), align), Math.max(longest, align), room);
  return { offset, length: size };
}
