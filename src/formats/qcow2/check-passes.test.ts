/** Checks and repairs with little memory for counters (Q-CHK-7): the same in several passes. */
import { describe, expect, test } from 'vitest';
import {
  CLUSTER,
  changeCount,
  checkImage,
  checkWhole,
  entryAt,
  entryOf,
  faultsOf,
  filledImage,
  refcountBlock,
  SOUND,
} from '../../../tests/support/qcow2-checks.ts';
import { firstL2, makeImage, PATH, patchWords, some, useDisk, wordsAt } from '../../../tests/support/qcow2-image.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import type { SimHost } from '../../testing/index.ts';

const DAMAGES: Readonly<Record<string, (host: SimHost) => Promise<void>>> = {
  leaks: (host) => patchWords(host, refcountBlock(host) + 8, 0x0001_0002_0001_0002n),
  'leaks and a cluster that is shared': async (host) => {
    await patchWords(host, refcountBlock(host) + 16, 0x0001_0003_0000_0000n);
    await patchWords(host, entryAt(host, 2), entryOf(5));
  },
  'a structure that must be built anew': (host) => patchWords(host, refcountBlock(host) + 8, 0x0001_0000_0000_0001n),
  'a refcount block that is used twice': (host) =>
    patchWords(host, Number(wordsAt(host, 48)[0]) + 8, BigInt(2 * CLUSTER)),
  'data of a snapshot in the L2 table, where counts allow for it, and a count too low elsewhere': async (host) => {
    const snapshotL2 = firstL2(host);
    await useDisk(host, async (disk) => {
      await disk.snapshots.create('first');
      await disk.write(0, some(2, CLUSTER));
    });
    await patchWords(host, snapshotL2 + 8, BigInt(firstL2(host)));
    await changeCount(host, firstL2(host) / CLUSTER, 1n);
    await changeCount(host, 7, -1n);
  },
  'data in the L2 table': (host) => patchWords(host, entryAt(host, 3), entryOf(4)),
};

describe.each(Object.entries(DAMAGES))('%s', (_name, damage) => {
  test('the same is found', async () => {
    const host = await filledImage();
    await damage(host);
    const whole = await checkImage(host);
    const passes = await checkImage(host, { memory: 3 });
    expect([...passes.lines].sort()).toEqual([...whole.lines].sort());
    expect(passes.details).toEqual(whole.details);
    expect(passes.report).toEqual(whole.report);
    expect(whole.lines.length).toBeGreaterThan(0);
  });

  test('the same is repaired, to the byte', async () => {
    const [whole, passes] = [await filledImage(), await filledImage()];
    for (const host of [whole, passes]) await damage(host);
    const [one, many] = [
      await checkWhole(whole, { repair: 'all' }),
      await checkWhole(passes, { repair: 'all', memory: 3 }),
    ];
    expect(many.report).toEqual(one.report);
    expect(many.repaired).toEqual(one.repaired);
    expect(differsAt(passes.contents(PATH), whole.contents(PATH))).toBe(-1);
    expect(faultsOf(passes)).toEqual(SOUND);
  });
});

test('a structure of several blocks is built anew in passes that end inside of blocks', async () => {
  const host = await makeImage({ cluster_size: 512, refcount_bits: 64 }, { size: 300 * 512 });
  await useDisk(host, (disk) => disk.write(0, some(1, 300 * 512)));
  const [block = 0n] = wordsAt(host, Number(wordsAt(host, 48)[0]) + 8);
  await patchWords(host, Number(block), 0n, 0n);
  const { report, lines } = await checkWhole(host, { repair: 'all', memory: 37 });
  expect(lines).toContain('Rebuilding refcount structure');
  expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
  expect(faultsOf(host)).toEqual(SOUND);
});

test('a table that cannot be read in one of the passes: nothing is taken for a leak', async () => {
  let failed = 0;
  for (let skip = 0; skip < 40; skip++) {
    const host = await filledImage();
    await patchWords(host, refcountBlock(host) + 16, 0x0001_0003_0000_0000n);
    host.faults.inject({
      operation: 'read',
      code: 'EIO',
      path: PATH,
      offset: 4 * CLUSTER,
      length: CLUSTER,
      skip,
      times: 1,
    });
    const ended = await checkImage(host, { repair: 'leaks', memory: 3 }).catch(({ code }) => code);
    host.faults.clear();
    expect(faultsOf(host).problems).toEqual([]);
    if (ended !== 'EIO' && ended.report.checkErrors === 0) break;
    failed++;
  }
  expect(failed).toBeGreaterThan(3);
});

test('more that is shared than can be remembered: told by a check, refused by a repair before it changes counts', async () => {
  const host = await makeImage({ cluster_size: 16384 }, { size: 1200 * 16384 });
  await useDisk(host, (disk) => disk.write(0, some(1, 16384)));
  const [l1 = 0n] = wordsAt(host, Number(wordsAt(host, 40)[0]));
  await patchWords(host, Number(l1 & 0xffff_ffffn), ...Array<bigint>(1200).fill((1n << 63n) | 0x14000n));
  const before = host.contents(PATH);
  const { report } = await checkImage(host, { memory: 1 << 16 });
  expect(report.corruptions).toBeGreaterThan(0);
  await expect(checkImage(host, { repair: 'all', memory: 1 << 16 })).rejects.toMatchObject({
    code: 'ENOMEM',
    message: 'More than 1024 clusters are shared by data: to repair that takes more memory than is given for it',
  });
  expect(differsAt(host.contents(PATH), before)).toBe(-1);
  expect((await checkWhole(host, { repair: 'all' })).report).toMatchObject({ corruptions: 0, leaks: 0 });
});
