import { expect, test } from 'vitest';
import { SeededRandom } from '../../bytes/random.ts';
import { PieceMap } from './piece-map.ts';

const SIZE = 4000;

/** What each byte of the range is: where it lies in the log, -1 for the base. */
function flattened(map: PieceMap): number[] {
  const bytes: number[] = [];
  let at = 0;
  for (const { start, end, piece } of map.runs(0, SIZE)) {
    if (start !== at || end <= start) throw new Error(`a run from ${start} to ${end} follows byte ${at}`);
    for (at = start; at < end; at++) bytes.push(piece === undefined ? -1 : piece.at + at - piece.start);
  }
  expect(at).toBe(SIZE);
  return bytes;
}

test('is what was put last, everywhere; copies go their own way', () => {
  const random = new SeededRandom(3);
  for (const longest of [3, 40, 3000]) {
    const map = new PieceMap();
    const model = new Array<number>(SIZE).fill(-1);
    let next = 0;
    const put = () => {
      const start = random.below(SIZE);
      const end = Math.min(SIZE, start + 1 + random.below(longest));
      map.put({ start, end, kind: 'log', at: next });
      for (let i = start; i < end; i++) model[i] = next + i - start;
      next += 10_000;
    };
    for (let i = 0; i < 2000; i++) put();
    const copy = map.fork();
    const then = [...model];
    for (let i = 0; i < 500; i++) put();
    expect(flattened(map)).toEqual(model);
    expect(flattened(copy)).toEqual(then);
    const [from, to] = [random.below(SIZE / 2), SIZE / 2 + random.below(SIZE / 2)];
    const part = [...map.runs(from, to)].flatMap(({ start, end, piece }) => {
      return Array.from({ length: end - start }, (_, i) =>
        piece === undefined ? -1 : piece.at + start - piece.start + i,
      );
    });
    expect(part).toEqual(model.slice(from, to));
  }
});
