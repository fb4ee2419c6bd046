/** The crash states of a log, one after another, each one once. */
import { SeededRandom } from '../../bytes/random.ts';
import { Print } from './content-print.ts';
import type { Change, CrashLog, Moment } from './crash-log.ts';
import { EpochPrints } from './epoch-prints.ts';
import { type Kept, keptRanges, type Loseable, outcomeCount, outcomes, unitsOf } from './outcomes.ts';
import { PieceMap } from './piece-map.ts';
import { shareStates } from './plan.ts';
import { readState, type StateContent, type StateSource } from './state-driver.ts';

export interface StateOptions {
  readonly seed: number;
  readonly atomic: number;
  /** States in all, at most. */
  readonly states: number;
  readonly signal: AbortSignal | undefined;
}

/** A moment with the disk below what may be lost then. */
export interface Scene {
  readonly moment: Moment;
  /** What may be lost, in the order it was done. */
  readonly changes: readonly Change[];
  readonly loseable: readonly Loseable[];
  /** The disk without them. */
  readonly durable: StateContent;
  readonly atomic: number;
}

export interface Candidate {
  /** From 0, in the order they are tried. */
  readonly index: number;
  readonly scene: Scene;
  readonly kept: readonly Kept[];
  /** States left out before it, because an equal one was tried. */
  readonly repeated: number;
}

export interface StatePlan {
  /** For each moment, the states that it gets. */
  readonly shares: readonly number[];
  readonly total: number;
  /** Every state is tried that there is. */
  readonly exhaustive: boolean;
}

/** The disk that is left when of the scene's changes those are kept. */
export function contentOf({ changes, durable, atomic }: Scene, kept: readonly Kept[]): StateContent {
  const pieces = durable.pieces.fork();
  let { length } = durable;
  for (const [i, change] of changes.entries()) {
    for (const range of keptRanges(change, kept[i] ?? false, atomic)) {
      pieces.put({ ...range, ...sourceOf(change, range.start) });
      length = Math.max(length, range.end);
    }
  }
  return { pieces, length };
}

function sourceOf({ kind, dataAt, offset }: Change, start: number): { kind: 'log' | 'zero'; at: number } {
  return kind === 'discard' ? { kind: 'zero', at: 0 } : { kind: 'log', at: dataAt + start - offset };
}

/** Like requests of a disk: how the power may leave what was being written at one moment. */
function sceneOf(log: CrashLog, moment: Moment, durable: StateContent, atomic: number): Scene {
  const epoch = log.epochs[moment.epoch];
  const start = Math.min(epoch?.start ?? 0, moment.end);
  const changes = log.changes.slice(start, moment.end);
  const loseable = changes.map((change, i) => ({
    units: unitsOf(change, atomic),
    certain: change.fua && start + i !== moment.inFlight,
  }));
  return { moment, changes, loseable, durable, atomic };
}

/** How many outcomes each moment has, equal ones counted as often as they come. */
function capacitiesOf({ changes, epochs, moments }: CrashLog, atomic: number): number[] {
  const before = new Float64Array(changes.length + 1);
  for (const [i, change] of changes.entries()) {
    before[i + 1] = (before[i] ?? 0) + (change.fua ? 0 : unitsOf(change, atomic));
  }
  return moments.map(({ epoch, end, inFlight }) => {
    const start = Math.min(epochs[epoch]?.start ?? 0, end);
    const flying = inFlight === undefined ? undefined : changes[inFlight];
    return outcomeCount((before[end] ?? 0) - (before[start] ?? 0) + (flying ? unitsOf(flying, atomic) : 0));
  });
}

/** Shares the states that may be tried among the moments. */
export function planStates(log: CrashLog, { seed, atomic, states }: StateOptions): StatePlan {
  const capacities = capacitiesOf(log, atomic);
  const shares = shareStates(capacities, states, new SeededRandom(seed));
  return {
    shares,
    total: shares.reduce((sum, share) => sum + share, 0),
    exhaustive: shares.every((share, i) => share === capacities[i]),
  };
}

/** Every state that is to be tried. Deterministic: one log and one seed give one sequence. */
export async function* crashStates(
  log: CrashLog,
  source: StateSource,
  { shares }: StatePlan,
  options: StateOptions,
): AsyncGenerator<Candidate> {
  const { atomic, signal } = options;
  const random = new SeededRandom(options.seed).fork();
  const walk = new EpochWalk(log, source, options);
  const seen = new Set<string>();
  let index = 0;
  let repeated = 0;
  for (const [place, moment] of log.moments.entries()) {
    const share = shares[place] ?? 0;
    // Each has chance of its own, so that how one is tried does not change the others.
    const chance = random.fork();
    if (share === 0) continue;
    const { durable, printOf } = await walk.goTo(moment.epoch);
    const scene = sceneOf(log, moment, durable, atomic);
    let left = share;
    // Random outcomes repeat more and more where there are few.
    let attempts = share * 4 + 16;
    for (const kept of outcomes(scene.loseable, share, chance)) {
      signal?.throwIfAborted();
      if (left === 0 || attempts-- === 0) break;
      const key = `${moment.marks} ${printOf(scene, kept)}`;
      if (seen.has(key)) {
        repeated++;
        continue;
      }
      seen.add(key);
      left--;
      yield { index: index++, scene, kept, repeated };
    }
  }
}

interface EpochView {
  readonly durable: StateContent;
  printOf(scene: Scene, kept: readonly Kept[]): string;
}

/** Goes through the epochs of a log, making each durable before the next. */
class EpochWalk {
  readonly #log: CrashLog;
  readonly #source: StateSource;
  readonly #options: StateOptions;
  readonly #pieces = new PieceMap();
  #length: number;
  #epoch = 0;
  #print = new Print();
  #view: EpochView | undefined;
  #prints: EpochPrints | undefined;

  constructor(log: CrashLog, source: StateSource, options: StateOptions) {
    this.#log = log;
    this.#source = source;
    this.#options = options;
    this.#length = source.base.length;
  }

  async goTo(epoch: number): Promise<EpochView> {
    while (this.#epoch < epoch) this.#leave();
    this.#view ??= await this.#look();
    return this.#view;
  }

  #leave(): void {
    const { start, end } = this.#log.epochs[this.#epoch] ?? { start: 0, end: 0 };
    const changes = this.#log.changes.slice(start, end);
    if (this.#prints !== undefined)
      this.#prints.apply(
        this.#print,
        changes.map(() => true),
      );
    // Not looked into: from here on nothing equals what was before.
    else if (changes.length > 0) this.#print.toggle(-1 - this.#epoch, 0xffffffff, 1);
    for (const change of changes) {
      const range = { start: change.offset, end: change.offset + change.length };
      this.#pieces.put({ ...range, ...sourceOf(change, range.start) });
      this.#length = Math.max(this.#length, range.end);
    }
    this.#prints = undefined;
    this.#view = undefined;
    this.#epoch++;
  }

  async #look(): Promise<EpochView> {
    const { atomic, signal } = this.#options;
    const { start, end } = this.#log.epochs[this.#epoch] ?? { start: 0, end: 0 };
    const durable = { pieces: this.#pieces.fork(), length: this.#length };
    const grain = Math.min(atomic, this.#log.sectorSize);
    const prints = await EpochPrints.load(
      {
        epoch: this.#epoch,
        changes: this.#log.changes.slice(start, end),
        grain,
        atomic,
        before: (offset, target) => readState(this.#source, durable, offset, target),
        log: (offset, target) => this.#source.log.read(offset, target),
      },
      signal,
    );
    this.#prints = prints;
    const base = this.#print.copy();
    const epoch = this.#epoch;
    return {
      durable,
      printOf(scene, kept) {
        const print = base.copy();
        if (prints === undefined) return `${print.text} ${epoch} ${kept.map(shortly).join('')}`;
        prints.apply(print, kept);
        return `${print.text} ${lengthOf(scene, kept)}`;
      },
    };
  }
}

function lengthOf({ changes, durable, atomic }: Scene, kept: readonly Kept[]): number {
  let { length } = durable;
  for (const [i, change] of changes.entries()) {
    if (change.offset + change.length <= length) continue;
    for (const { end } of keptRanges(change, kept[i] ?? false, atomic)) length = Math.max(length, end);
  }
  return length;
}

function shortly(kept: Kept): string {
  return typeof kept === 'boolean' ? (kept ? '1' : '0') : `(${kept.join('')})`;
}
