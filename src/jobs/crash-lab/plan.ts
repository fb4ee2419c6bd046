/** How many states each moment gets, of those that may be tried in all. */
import type { SeededRandom } from '../../bytes/random.ts';
import { shuffle } from './outcomes.ts';

/**
 * Shares `total` states among moments that have `capacities` outcomes: those with few get all of theirs, the others
 * even shares. Where there are more moments than states, chance picks.
 */
export function shareStates(capacities: readonly number[], total: number, random: SeededRandom): number[] {
  const shares = new Array<number>(capacities.length).fill(0);
  const order = capacities.map((_, i) => i);
  if (total < capacities.length) shuffle(order, random);
  else order.sort((a, b) => compare(capacities[a] ?? 0, capacities[b] ?? 0));
  let left = total;
  for (const [place, i] of order.entries()) {
    const even = Math.max(1, Math.floor(left / (order.length - place)));
    const share = Math.min(capacities[i] ?? 0, even, left);
    shares[i] = share;
    left -= share;
  }
  return shares;
}

function compare(a: number, b: number): number {
  return a === b ? 0 : a < b ? -1 : 1;
}
