/** Storage that data of a snapshot share with each other or with metadata: each gets its own, and snapshots go on sharing (Q-CHK-6). */
import { describe, expect, test } from 'vitest';
import { changeCount, checkWhole, faultsOf, refcountBlock, SOUND } from '../../../tests/support/qcow2-checks.ts';
import {
  type Contents,
  contentsOf,
  firstL2,
  makeImage,
  openDisk,
  patchWords,
  some,
  useDisk,
  wordsAt,
} from '../../../tests/support/qcow2-image.ts';
import { quickCrypto } from '../../../tests/support/quick-crypto.ts';
import type { Disk } from '../../core/disk.ts';
import type { OptionTree } from '../../core/options.ts';
import { secrets } from '../../crypto/secrets.ts';
import { checkDisk } from '../../jobs/check.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import { SimHost } from '../../testing/index.ts';

const CLUSTER = 512;
/** Guest clusters below one L2 table. */
const BELOW = CLUSTER / 8;

interface Made {
  /** `both`: the second snapshot has the tables of the first; `all`: the disk too; `own`: the first has its own. */
  readonly shares?: 'own' | 'both' | 'all';
  readonly options?: OptionTree;
  readonly compressed?: boolean;
}

/** Clusters 0 to 3, and as many below the second L2 table, in one snapshot or two. */
async function withSnapshots({ shares = 'own', options = {}, compressed = false }: Made = {}): Promise<SimHost> {
  const host = await makeImage({ cluster_size: CLUSTER, ...options }, { size: 2 * BELOW * CLUSTER });
  await useDisk(host, async (disk) => {
    await disk.write(0, some(1, 4 * CLUSTER).fill(9, 300), { compressed });
    await disk.write(BELOW * CLUSTER, some(2, 4 * CLUSTER));
    await disk.snapshots.create('first');
    if (shares !== 'own') await disk.snapshots.create('second');
    if (shares === 'all') return;
    await disk.write(0, some(3, 4 * CLUSTER));
    await disk.write(BELOW * CLUSTER, some(4, 4 * CLUSTER));
  });
  return host;
}

const OFFSET = 0x00ff_ffff_ffff_fe00n;

/** Where the first snapshot's L1 table is, and its L2 tables. */
function tablesOf(host: SimHost) {
  const [table = 0n] = wordsAt(host, 64);
  const l1 = Number(wordsAt(host, Number(table))[0]);
  const l2 = wordsAt(host, l1, 2).map((entry) => Number(entry & OFFSET));
  return { l1, l2: l2[0] ?? 0, second: l2[1] ?? 0 };
}

const wordAt = (host: SimHost, offset: number) => wordsAt(host, offset)[0] ?? 0n;

type Damage = (host: SimHost) => Promise<void>;

const twice: Damage = (host) => {
  const { l2 } = tablesOf(host);
  return patchWords(host, l2 + 16, wordAt(host, l2));
};
const farApart: Damage = (host) => {
  const { l2, second } = tablesOf(host);
  return patchWords(host, second + 8, wordAt(host, l2));
};
const thrice: Damage = async (host) => {
  await twice(host);
  await farApart(host);
};
const tableTwice: Damage = (host) => {
  const { l1 } = tablesOf(host);
  return patchWords(host, l1 + 8, wordAt(host, l1));
};

function expectSame(found: Contents, expected: Contents): void {
  expect(differsAt(found.disk, expected.disk)).toBe(-1);
  expect(found.snapshots.map((each, i) => differsAt(each, expected.snapshots[i] ?? found.disk))).toEqual(
    expected.snapshots.map(() => -1),
  );
}

/** No cluster is named twice by one snapshot. */
function expectApart(host: SimHost): void {
  const { l2, second } = tablesOf(host);
  const named = [...wordsAt(host, l2, 4), ...wordsAt(host, second, 4)].map((entry) => entry & OFFSET);
  expect(new Set(named).size).toBe(named.length);
}

describe('two entries of one snapshot', () => {
  test.each<[string, Made, Damage]>([
    ['below one table', {}, twice],
    ['below two tables', {}, farApart],
    ['three of them', {}, thrice],
    ['of a table that two snapshots have', { shares: 'both' }, twice],
    ['of tables that two snapshots have', { shares: 'both' }, thrice],
    ['of tables that the disk has too', { shares: 'all' }, thrice],
    ['with counts of one byte', { options: { refcount_bits: 8 } }, thrice],
  ])('%s: each has its own, with the same content', async (_name, made, damage) => {
    const host = await withSnapshots(made);
    await damage(host);
    const before = contentsOf(host);
    const found = await checkWhole(host);
    expect(found.details).toContainEqual(
      expect.stringMatching(
        /^cluster \d+ holds data of guest offset 0x(400|8200) of snapshot 1 \(first\) and data of guest offset 0x0$/,
      ),
    );
    const { report, details } = await checkWhole(host, { repair: 'all' });
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    expect(details).toContainEqual(expect.stringMatching(/^Repairing guest offset 0x(400|8200)/));
    expect(faultsOf(host)).toEqual(SOUND);
    expectSame(contentsOf(host), before);
    expectApart(host);
  });

  test('an L2 table that it names twice', async () => {
    const host = await withSnapshots();
    await tableTwice(host);
    const before = contentsOf(host);
    const { report, details } = await checkWhole(host, { repair: 'all' });
    expect(details).toContain('Repairing guest offset 0x8000 of snapshot 1 (first): it has an L2 table of its own now');
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    expect(faultsOf(host)).toEqual(SOUND);
    expectSame(contentsOf(host), before);
    expectApart(host);
  });

  test('a compressed one and a plain one', async () => {
    const host = await withSnapshots({ compressed: true });
    const { l2, second } = tablesOf(host);
    const packed = wordAt(host, l2) & 0xffff_ffffn;
    await patchWords(host, second, packed & OFFSET & ~BigInt(CLUSTER - 1));
    const before = contentsOf(host);
    const { report } = await checkWhole(host, { repair: 'all' });
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    expect(faultsOf(host)).toEqual(SOUND);
    expectSame(contentsOf(host), before);
  });

  test('with subclusters', async () => {
    const options = { cluster_size: 16384, extended_l2: true };
    const host = await makeImage(options, { size: 1 << 20 });
    await useDisk(host, async (disk) => {
      await disk.write(0, some(1, 3 * 16384 + 700));
      await disk.snapshots.create('first');
      await disk.write(0, some(2, 4 * 16384));
    });
    const { l2 } = tablesOf(host);
    await patchWords(host, l2 + 32, wordAt(host, l2));
    const before = contentsOf(host);
    expect((await checkWhole(host, { repair: 'all' })).report).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(faultsOf(host)).toEqual(SOUND);
    expectSame(contentsOf(host), before);
  });
});

test('of an encrypted image: stored anew for its new place', async () => {
  const host = Object.assign(new SimHost({ record: false }), { crypto: quickCrypto });
  secrets(host).set('s', 'open sesame');
  const options = { cluster_size: CLUSTER, 'encrypt.format': 'luks', 'encrypt.key-secret': 's' };
  await makeImage(options, { size: 16 * CLUSTER, host });
  const key = { 'encrypt.key-secret': 's' };
  const use = (work: (disk: Disk) => Promise<void>) => useDisk(host, work, key);
  await use(async (disk) => {
    await disk.write(0, some(1, 4 * CLUSTER));
    await disk.snapshots.create('first');
    await disk.write(0, some(2, 4 * CLUSTER));
  });
  await twice(host);
  const disk = await openDisk(host, key, { writable: true, checkOnly: true });
  expect((await checkDisk(disk, { repair: 'all' })).report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
  await disk.close();
  expect(faultsOf(host)).toEqual(SOUND);
  expect(new Set(wordsAt(host, tablesOf(host).l2, 4)).size).toBe(4);
  await use(async (again) => {
    expect(differsAt(await again.read(0, 4 * CLUSTER), some(2, 4 * CLUSTER))).toBe(-1);
    await again.snapshots.apply('first');
    const expected = some(1, 4 * CLUSTER);
    expected.copyWithin(2 * CLUSTER, 0, CLUSTER);
    expect(differsAt(await again.read(0, 4 * CLUSTER), expected)).toBe(-1);
  });
});

describe('data of a snapshot in metadata', () => {
  test.each<[string, (host: SimHost) => number]>([
    ['refcount block', (host) => Number(wordAt(host, Number(wordAt(host, 48))))],
    ['active L1 table', (host) => Number(wordAt(host, 40))],
    ['inactive L2 table', (host) => tablesOf(host).l2],
  ])('the %s: the data go elsewhere', async (text, place) => {
    const host = await withSnapshots({ shares: 'both' });
    const at = place(host);
    await patchWords(host, tablesOf(host).l2 + 8, BigInt(at));
    const found = await checkWhole(host);
    expect(found.details).toContain(
      `cluster ${at / CLUSTER} holds data of guest offset 0x200 of snapshot 1 (first) and the ${text}`,
    );
    const before = contentsOf(host);
    const { report } = await checkWhole(host, { repair: 'all' });
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    expect(faultsOf(host)).toEqual(SOUND);
    const after = contentsOf(host);
    expect(differsAt(after.disk, before.disk)).toBe(-1);
    for (const content of [...before.snapshots, ...after.snapshots]) content.fill(0, CLUSTER, 2 * CLUSTER);
    expectSame(after, before);
  });
});

describe('the same where counts allow for it', () => {
  test.each<[string, number, (host: SimHost) => number]>([
    ['active L1 table', 0, (host) => Number(wordAt(host, 40))],
    ['active L2 table', 0, firstL2],
    ['refcount block', 0, refcountBlock],
    ['inactive L1 table', 0, (host) => tablesOf(host).l1],
    ['inactive L2 table', 0, (host) => tablesOf(host).l2],
    ['inactive L2 table', 1, (host) => tablesOf(host).second],
  ])('the %s (entry %i of a table): the data go elsewhere', async (text, index, place) => {
    const host = await withSnapshots();
    const [at, entry] = [place(host), tablesOf(host).l2 + 8 * index];
    const left = Number(wordAt(host, entry) & OFFSET) / CLUSTER;
    await patchWords(host, entry, BigInt(at));
    await changeCount(host, at / CLUSTER, 1n);
    await changeCount(host, left, -1n);
    const told = `cluster ${at / CLUSTER} holds data of guest offset 0x${(index * CLUSTER).toString(16)} of snapshot 1 (first) and the ${text}`;
    expect((await checkWhole(host)).details).toEqual([told]);
    const before = contentsOf(host);
    const { report, details } = await checkWhole(host, { repair: 'all' });
    expect(details[0]).toBe(told);
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    expect(faultsOf(host)).toEqual(SOUND);
    const after = contentsOf(host);
    for (const content of [...before.snapshots, ...after.snapshots]) {
      content.fill(0, index * CLUSTER, (index + 1) * CLUSTER);
    }
    expectSame(after, before);
  });

  test('data of the disk in an L2 table of a snapshot', async () => {
    const host = await withSnapshots();
    const [at, entry] = [tablesOf(host).l2, firstL2(host)];
    const left = Number(wordAt(host, entry) & OFFSET) / CLUSTER;
    await patchWords(host, entry, BigInt(at));
    await changeCount(host, at / CLUSTER, 1n);
    await changeCount(host, left, -1n);
    const told = `cluster ${at / CLUSTER} holds data of guest offset 0x0 and the inactive L2 table`;
    expect((await checkWhole(host)).details).toEqual([told]);
    const before = contentsOf(host);
    expect((await checkWhole(host, { repair: 'all' })).report).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(faultsOf(host)).toEqual(SOUND);
    expectSame(contentsOf(host), before);
    expect(wordAt(host, firstL2(host)) & OFFSET).not.toBe(BigInt(at));
  });
});

test('what snapshots and the disk share is nothing to be told of', async () => {
  for (const shares of ['both', 'all'] as const) {
    const host = await withSnapshots({ shares });
    // Counts are looked at closely where they are wrong.
    const { l2 } = tablesOf(host);
    const block = Number(wordAt(host, Number(wordAt(host, 48))));
    const at = block + Math.floor(Number(wordAt(host, l2) & OFFSET) / CLUSTER) * 2;
    await patchWords(host, at - (at % 8), 0x0001_0001_0001_0001n);
    const found = await checkWhole(host);
    expect(found.details).toEqual([]);
    expect(found.report.corruptions).toBeGreaterThan(0);
    const before = contentsOf(host);
    expect((await checkWhole(host, { repair: 'all' })).report).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(faultsOf(host)).toEqual(SOUND);
    expectSame(contentsOf(host), before);
  }
});
