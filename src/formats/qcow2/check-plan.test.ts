/** What a repair would do, seen without being done (Q-CHK-6); progress and cancellation of checks. */
import { describe, expect, test } from 'vitest';
import {
  CLUSTER,
  COPIED,
  checkWhole,
  entryAt,
  entryOf,
  faultsOf,
  filledImage,
  refcountBlock,
  SOUND,
} from '../../../tests/support/qcow2-checks.ts';
import { PATH, patchWords, useDisk, wordsAt } from '../../../tests/support/qcow2-image.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import type { SimHost } from '../../testing/index.ts';

const DAMAGES: Readonly<Record<string, (host: SimHost) => Promise<void>>> = {
  leaks: (host) => patchWords(host, refcountBlock(host) + 16, 0x0001_0003_0000_0000n),
  'counts that are too low': (host) => patchWords(host, refcountBlock(host) + 8, 0x0001_0001_0000_0001n),
  'data that share': (host) => patchWords(host, entryAt(host, 2), entryOf(5)),
  'data in the L1 table': (host) => patchWords(host, entryAt(host, 1), entryOf(3)),
  'reserved bits': (host) => patchWords(host, entryAt(host, 0), COPIED | (1n << 58n) | BigInt(5 * CLUSTER), 0x345601n),
  'a mark only': (host) => patchWords(host, 72, 2n),
  'a snapshot without its L2 table': async (host) => {
    await useDisk(host, (disk) => disk.snapshots.create('s'));
    const [table = 0n] = wordsAt(host, 64);
    const [l1 = 0n] = wordsAt(host, Number(table));
    await patchWords(host, Number(l1), 0n);
  },
};

describe('a plan (Q-CHK-6)', () => {
  test.each(Object.entries(DAMAGES))('of %s says what the repair says, and writes nothing', async (_name, damage) => {
    const host = await filledImage();
    await damage(host);
    const before = host.contents(PATH);
    const found = await checkWhole(host);
    const plan = await checkWhole(host, { repair: 'all', plan: true });
    expect(differsAt(host.contents(PATH), before)).toBe(-1);
    expect(plan.report).toEqual(found.report);
    expect(plan.repaired).toBeUndefined();
    const real = await checkWhole(host, { repair: 'all' });
    expect(differsAt(host.contents(PATH), before)).not.toBe(-1);
    expect([plan.lines, plan.details]).toEqual([real.lines, real.details]);
    expect(plan.lines.length + plan.details.length).toBeGreaterThan(0);
    expect(plan.planned).toEqual({ leaks: 0, corruptions: 0, ...real.repaired, left: real.report });
    expect(faultsOf(host)).toEqual(SOUND);
  });

  test('of what cannot be repaired that way fails as the repair does', async () => {
    const host = await filledImage();
    await patchWords(host, refcountBlock(host) + 8, 0x0001_0001_0000_0001n);
    await expect(checkWhole(host, { repair: 'leaks', plan: true })).rejects.toMatchObject({ code: 'EIO' });
  });

  test('takes no more memory than it may', async () => {
    const host = await filledImage();
    await patchWords(host, entryAt(host, 2), entryOf(5));
    const before = host.contents(PATH);
    const text = 'Planning the repair takes more than 4096 bytes of memory for what it would write';
    const planned = checkWhole(host, { repair: 'all', plan: true, memory: 8000 });
    await expect(planned).rejects.toMatchObject({ code: 'ENOMEM', message: text });
    expect(differsAt(host.contents(PATH), before)).toBe(-1);
  });
});

describe('progress', () => {
  test.each([
    ['a check', {}],
    ['a repair with a second look', { repair: 'all' }],
    ['a plan', { repair: 'all', plan: true }],
    ['a check in passes', { memory: 3 }],
  ] as const)('of %s grows from 0 to its total', async (_name, options) => {
    const host = await filledImage();
    await patchWords(host, entryAt(host, 2), entryOf(5));
    const told: [number, number][] = [];
    await checkWhole(host, { ...options, progress: (done, total) => void told.push([done, total]) });
    const totals = new Set(told.map(([, total]) => total));
    expect(totals.size).toBe(1);
    const [total = 0] = totals;
    expect(told[0]).toEqual([0, total]);
    expect(told.at(-1)?.[0]).toBe(total);
    expect(told.every(([done], i) => done >= (told[i - 1]?.[0] ?? 0))).toBe(true);
  });

  test('an abort ends the check with its reason, at any step, and the image can still be repaired', async () => {
    let aborted = 0;
    for (let steps = 1; ; steps++) {
      const host = await filledImage();
      await patchWords(host, entryAt(host, 2), entryOf(5));
      const abort = new AbortController();
      let left = steps;
      const progress = () => {
        if (--left === 0) abort.abort(new Error('enough'));
      };
      const ended = checkWhole(host, { repair: 'all', progress, signal: abort.signal });
      const error = await ended.then(
        () => undefined,
        (reason: Error) => reason.message,
      );
      if (left > 0) break;
      // Behind the last step there is nothing to be left out.
      if (error === undefined) continue;
      expect(error).toBe('enough');
      aborted++;
      await checkWhole(host, { repair: 'all' });
      expect(faultsOf(host)).toEqual(SOUND);
    }
    expect(aborted).toBeGreaterThan(5);
  });
});
