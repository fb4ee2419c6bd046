/** Which unsynced changes a crash leaves: chosen at random, or all ways in turn where they are few. */
import type { SeededRandom } from '../bytes/random.ts';
import { type FileChange, type Survival, sectorCount, type VolatileEntry } from './sim-image.ts';

/** A change of which only some sectors got through, in one of the patterns that disks show. */
function tear(change: FileChange, random: SeededRandom): Survival {
  const count = sectorCount(change);
  if (count < 2) return random.chance(0.5) ? 'whole' : 'lost';
  const kept: boolean[] = new Array<boolean>(count).fill(false);
  const cut = random.between(1, count - 1);
  const pattern = random.below(4);
  if (pattern === 0) kept.fill(true, 0, cut);
  else if (pattern === 1) kept.fill(true, cut);
  else if (pattern === 2) kept.fill(true).fill(false, cut, cut + random.between(1, count - cut));
  else for (let i = 0; i < count; i++) kept[i] = random.chance(0.5);
  return { kept, grown: random.chance(0.5) };
}

/** One random outcome: leaning to keep or to lose, with some changes torn. */
export function randomSurvivals(entries: readonly VolatileEntry[], random: SeededRandom): Survival[] {
  const keep = random.pick([0.1, 0.5, 0.9]);
  const torn = random.pick([0, 0.1, 0.5]);
  return entries.map(({ entry }) => {
    if (entry.type === 'change' && random.chance(torn)) return tear(entry.change, random);
    return random.chance(keep) ? 'whole' : 'lost';
  });
}

/**
 * At most `limit` outcomes: all subsets where they fit; else all kept, none kept, each lost alone and each kept alone as far as they fit.
 * Half of the limit at least goes to random ones, with torn changes.
 */
export function* survivalChoices(
  entries: readonly VolatileEntry[],
  limit: number,
  random: SeededRandom,
): Generator<Survival[]> {
  const count = entries.length;
  const all = (survival: Survival) => new Array<Survival>(count).fill(survival);
  yield all('whole');
  if (count === 0 || limit <= 1) return;
  const systematic = Math.ceil(limit / 2);
  let given = 1;
  if (count < 31 && 2 ** count <= systematic) {
    for (let bits = 0; bits < 2 ** count - 1; bits++, given++) {
      yield entries.map((_, i) => ((bits >> i) & 1 ? 'whole' : 'lost'));
    }
  } else {
    yield all('lost');
    given++;
    // The newest first: those before were tried at the cuts before.
    for (let i = count - 1; i >= 0 && given + 1 < systematic; i--, given += 2) {
      yield all('whole').fill('lost', i, i + 1);
      yield all('lost').fill('whole', i, i + 1);
    }
  }
  for (; given < limit; given++) yield randomSurvivals(entries, random);
}
