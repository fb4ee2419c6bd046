/** What was probably meant by a mistyped word. */

/** Letters that may be wrong, missing, too many or swapped; of short words fewer. */
const MISTAKES = 2;

/** The candidate that is most like `word`, the first of several; undefined: none is like it. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const most = Math.min(MISTAKES, Math.floor(word.length / 3));
  const mistakes = candidates.map((name) => (name.startsWith(word) ? 0 : distance(word, name)));
  const least = Math.min(...mistakes);
  return least <= most ? candidates[mistakes.indexOf(least)] : undefined;
}

/** Changes of one letter, and swaps of neighbours, from one word to the other. */
function distance(from: string, to: string): number {
  let before: number[] = [];
  let row = Array.from({ length: to.length + 1 }, (_, j) => j);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const change = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1);
      let least = Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1);
      const swapped = i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1];
      if (swapped) least = Math.min(least, (before[j - 2] ?? 0) + 1);
      next.push(least);
    }
    before = row;
    row = next;
  }
  return row[to.length] ?? 0;
}
