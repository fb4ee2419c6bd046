/** Which of the changes that may be lost a power cut leaves: all ways where they are few, else the telling ones and then chance. */
import type { SeededRandom } from '../../bytes/random.ts';
import type { Change } from './crash-log.ts';

/** What is left of one change: all, nothing, or the atomic units that are not 0. */
export type Kept = boolean | Uint8Array;

/** A change as far as its loss is concerned. */
export interface Loseable {
  /** Parts that get through whole or not at all. */
  readonly units: number;
  /** Durable already. */
  readonly certain: boolean;
}

/** Parts of a change that a disk with atomic writes of so many bytes may tear it into. A discard is done or not. */
export function unitsOf({ kind, offset, length }: Change, atomic: number): number {
  if (kind === 'discard') return 1;
  return Math.ceil((offset + length) / atomic) - Math.floor(offset / atomic);
}

/** Up to so many parts in all, every outcome can be tried. */
const EXHAUSTIVE_BITS = 20;

/** How many outcomes there are of so many parts that may be lost; Infinity where they are too many to try. */
export function outcomeCount(units: number): number {
  return units > EXHAUSTIVE_BITS ? Number.POSITIVE_INFINITY : 2 ** units;
}

/**
 * Outcomes for one moment, some of them perhaps equal. Ends by itself only where all were given, which they are if they
 * are at most `limit`. Else: nothing lost, all lost, each change lost alone, only the first ones kept, each write torn, as
 * many of those as fit in two thirds of the limit; then random ones without end.
 */
export function* outcomes(loseable: readonly Loseable[], limit: number, random: SeededRandom): Generator<Kept[]> {
  const all = loseable.map((): Kept => true);
  const bits = loseable.reduce((sum, { units, certain }) => sum + (certain ? 0 : units), 0);
  if (outcomeCount(bits) <= limit) {
    yield* everyOutcome(loseable, bits);
    return;
  }
  const free = loseable.flatMap(({ certain }, i) => (certain ? [] : [i]));
  yield all;
  yield loseable.map(({ certain }) => certain);
  const telling = tellingOutcomes(loseable, free, random);
  const room = Math.max(0, Math.floor((limit * 2) / 3) - 2);
  if (telling.length > room) shuffle(telling, random);
  for (const make of telling.slice(0, room)) yield make();
  for (;;) yield randomOutcome(loseable, random);
}

function* everyOutcome(loseable: readonly Loseable[], bits: number): Generator<Kept[]> {
  // From all kept down, so that what fails with little lost is found first.
  for (let lost = 0; lost < 2 ** bits; lost++) {
    let bit = 0;
    yield loseable.map(({ units, certain }): Kept => {
      if (certain) return true;
      if (units === 1) return ((lost >>> bit++) & 1) === 0;
      const kept = Uint8Array.from({ length: units }, () => 1 - ((lost >>> bit++) & 1));
      return simplified(kept);
    });
  }
}

function tellingOutcomes(
  loseable: readonly Loseable[],
  free: readonly number[],
  random: SeededRandom,
): (() => Kept[])[] {
  const made: (() => Kept[])[] = [];
  const all = () => loseable.map((): Kept => true);
  for (const i of free) made.push(() => all().fill(false, i, i + 1));
  for (const [place, i] of free.entries()) {
    // The last one alone is lost already.
    if (place > 0 && place < free.length - 1) {
      made.push(() => loseable.map(({ certain }, other) => certain || other < i));
    }
  }
  for (const i of free) {
    const units = loseable[i]?.units ?? 1;
    if (units > 1) made.push(() => all().with(i, tear(units, random)));
  }
  return made;
}

/** Leaning to keep or to lose, with some changes torn. */
function randomOutcome(loseable: readonly Loseable[], random: SeededRandom): Kept[] {
  const keep = random.pick([0.1, 0.5, 0.9]);
  const torn = random.pick([0, 0.1, 0.5]);
  return loseable.map(({ units, certain }): Kept => {
    if (certain) return true;
    if (units > 1 && random.chance(torn)) return tear(units, random);
    return random.chance(keep);
  });
}

/** Some parts of at least two, in one of the patterns that disks show: the first, the last, all but a gap, any. */
function tear(units: number, random: SeededRandom): Kept {
  const kept = new Uint8Array(units);
  const cut = random.between(1, units - 1);
  const pattern = random.below(4);
  if (pattern === 0) kept.fill(1, 0, cut);
  else if (pattern === 1) kept.fill(1, cut);
  else if (pattern === 2) kept.fill(1).fill(0, cut, cut + random.between(1, units - cut));
  else for (let i = 0; i < units; i++) kept[i] = random.below(2);
  return simplified(kept);
}

/** All or nothing said as such. */
export function simplified(kept: Uint8Array): Kept {
  if (!kept.includes(0)) return true;
  return kept.includes(1) ? kept : false;
}

/** Fisher and Yates. */
export function shuffle<T>(list: T[], random: SeededRandom): void {
  for (let i = list.length - 1; i > 0; i--) {
    const other = random.below(i + 1);
    [list[i], list[other]] = [list[other] as T, list[i] as T];
  }
}

/** Runs of a change that are left, bytes of the disk. */
export function* keptRanges(change: Change, kept: Kept, atomic: number): Generator<{ start: number; end: number }> {
  const { offset, length } = change;
  const end = offset + length;
  if (kept === false) return;
  if (kept === true) {
    yield { start: offset, end };
    return;
  }
  const first = Math.floor(offset / atomic);
  for (let unit = 0; unit < kept.length; unit++) {
    if (kept[unit] === 0) continue;
    const from = unit;
    while (unit + 1 < kept.length && kept[unit + 1] !== 0) unit++;
    yield { start: Math.max(offset, (first + from) * atomic), end: Math.min(end, (first + unit + 1) * atomic) };
  }
}
