/** Files that take writes and do not make them, against a plain array. */
import { expect, test } from 'vitest';
import { differsAt } from '../testing/compare-bytes.ts';
import { operationData } from '../testing/disk-operations.ts';
import { SeededRandom } from '../testing/index.ts';
import type { Child, OpenContext } from './driver.ts';
import { Rehearsal } from './rehearsal.ts';

/** A file that must not be written to. */
function below(bytes: Uint8Array, growable = true): Child {
  const read = (offset: number, target: Uint8Array) => {
    target.fill(0);
    target.set(bytes.subarray(offset, offset + target.length));
  };
  const child: Partial<Child> = {
    growable,
    length: () => bytes.length,
    read: async (offset, target) => read(offset, target),
    tryReadNow(offset, target) {
      read(offset, target);
      return true;
    },
  };
  return child as Child;
}

function over(file: Child, memory = 1 << 20): Child {
  return new Rehearsal(memory).context({ file } as OpenContext<unknown>).file;
}

test('reads as what was written, cut and grown, over what is below', async () => {
  const original = operationData(1, 30_000);
  const file = over(below(original));
  let model = original.slice();
  const random = new SeededRandom(5);
  for (let step = 0; step < 400; step++) {
    const offset = random.below(40_000);
    const length = 1 + random.below(9000);
    const what = random.below(6);
    const grown = new Uint8Array(Math.max(model.length, offset + length));
    grown.set(model);
    if (what < 2) {
      const data = operationData(step, length);
      await file.write(offset, data);
      grown.set(data, offset);
      model = grown;
    } else if (what === 2) {
      await file.writeZeroes(offset, length);
      model = grown.fill(0, offset, offset + length);
    } else if (what === 3) {
      await file.truncate(offset, { shrink: true });
      model = grown.slice(0, offset).fill(0, model.length);
    }
    expect(file.length()).toBe(model.length);
    const expected = new Uint8Array(length);
    expected.set(model.subarray(offset, offset + length));
    const found = new Uint8Array(length);
    if (what % 2 === 0 || !file.tryReadNow(offset, found)) await file.read(offset, found);
    expect(differsAt(found, expected)).toBe(-1);
  }
  expect(differsAt(original, operationData(1, 30_000))).toBe(-1);
});

test('writes side by side into one page lose nothing', async () => {
  const file = over(below(operationData(1, 8192)));
  await Promise.all(Array.from({ length: 16 }, (_, i) => file.write(i * 256, new Uint8Array(200).fill(i + 1))));
  const found = new Uint8Array(4096);
  await file.read(0, found);
  for (let i = 0; i < 16; i++) expect(found[i * 256 + 199]).toBe(i + 1);
});

test('what does not grow is full at its end; memory ends with an error that is kept', async () => {
  const file = over(below(new Uint8Array(8192), false));
  await expect(file.write(8000, new Uint8Array(193))).rejects.toMatchObject({ code: 'ENOSPC' });
  const files = new Rehearsal(8192);
  const small = files.context({ file: below(new Uint8Array(0)) } as OpenContext<unknown>).file;
  await small.write(0, new Uint8Array(8192));
  await small.write(100, new Uint8Array(8000));
  await expect(small.write(8192, new Uint8Array(1))).rejects.toMatchObject({ code: 'ENOMEM' });
  expect(files.failure?.message).toContain('more than 8192 bytes');
});
