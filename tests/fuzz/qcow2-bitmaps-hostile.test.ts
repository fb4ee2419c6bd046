/** Q-BMP-3, Q-LIM-1: whatever an image says of its bitmaps, it gives bytes or a BlockError, and a repair leaves it usable. */
import { expect, test } from 'vitest';
import { bitmaps } from '../../src/bitmaps/bitmaps.ts';
import { createImage } from '../../src/core/create.ts';
import type { Disk } from '../../src/core/disk.ts';
import { SeededRandom, SimHost } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { readBitmaps } from '../support/qcow2-bitmaps.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';
import { mayRefuse } from './may-refuse.ts';

const SIZE = 200 * 512;

async function sound(clusterSize: number): Promise<Uint8Array> {
  const host = new SimHost({ record: false });
  const options = { cluster_size: clusterSize };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: SIZE, options });
  const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
  for (const name of ['b0', 'b1', 'b2']) await bitmaps(disk).add(name, { persistent: true, granularity: 512 });
  for (let i = 0; i < 12; i++) await disk.write(i * 7000, new Uint8Array(1500).fill(i + 1));
  bitmaps(disk).disable('b1');
  await disk.close();
  return host.contents(PATH);
}

/** The extension, records and words get values that matter, or any. */
function mutate(bytes: Uint8Array, random: SeededRandom): void {
  const view = new DataView(bytes.buffer);
  const { extensionAt, bitmaps: found } = readBitmaps(bytes);
  const places = [extensionAt, ...found.flatMap(({ recordAt, tableAt }) => [recordAt, tableAt])];
  const values = [
    0n,
    1n,
    2n,
    0x200n,
    0x1000n,
    0xffffn,
    1n << 31n,
    1n << 40n,
    1n << 55n,
    1n << 62n,
    1n << 63n,
    (1n << 64n) - 1n,
  ];
  for (let i = random.between(1, 3); i > 0; i--) {
    const at = random.pick(places) + random.below(4) * 8;
    if (at + 8 > bytes.length) continue;
    const kind = random.below(3);
    if (kind === 0) view.setBigUint64(at, random.pick(values));
    else if (kind === 1) view.setBigUint64(at, BigInt(random.below(bytes.length / 512) * 512));
    else bytes[at + random.below(8)] = random.below(256);
  }
}

async function use(disk: Disk, random: SeededRandom): Promise<void> {
  const list = bitmaps(disk);
  for (const { name = '', inconsistent } of list.list()) {
    if (inconsistent !== true) Array.from(list.dirtyAreas(name));
    await mayRefuse(async () => list.clear(name));
    if (random.chance(0.3)) await mayRefuse(() => list.remove(name));
  }
  if (!disk.writable) return;
  await mayRefuse(() => list.add('more', { persistent: true }));
  await mayRefuse(() => disk.write(random.below(SIZE - 2000), new Uint8Array(1200).fill(9)));
  await mayRefuse(() => disk.resize(SIZE + 512));
}

const rounds = longMode ? 20_000 : 150;
/** A bitmap's table that lies in an L2 table. */
const FOUND = [20267273];

test(`${rounds} images with broken bitmaps`, { timeout: longMode ? 3_600_000 : 60_000 }, async () => {
  const images = await Promise.all([512, 4096].map(sound));
  let mended = 0;
  const seeds = Array.from({ length: rounds }, (_, round) => testSeed + round);
  for (const seed of [...FOUND, ...seeds]) {
    const random = new SeededRandom(seed);
    const bytes = random.pick(images).slice();
    mutate(bytes, random);
    const host = new SimHost({ record: false, operationBudget: 20_000, capacity: 16 << 20 });
    host.put(PATH, bytes);
    const open = (writable: boolean, checkOnly = false) =>
      mayRefuse(() => graphOn(host).open(PATH, { format: 'qcow2', writable, checkOnly }));
    try {
      const reader = await open(false);
      if (reader !== undefined) {
        // Guest data do not depend on them.
        expect((await reader.read(7000, 1))[0]).toBe(2);
        await use(reader, random);
        await reader.close();
      }
      const repair = random.chance(0.5);
      const checker = repair ? await open(true, true) : undefined;
      await mayRefuse(async () => checker?.check({ repair: 'all', finding: () => {} }));
      await mayRefuse(async () => checker?.close());
      const writer = await open(true);
      if (repair && checker !== undefined) {
        expect(writer).toBeDefined();
        mended++;
      }
      if (writer !== undefined) {
        await use(writer, random);
        await mayRefuse(() => writer.close());
      }
      expect(host.openFiles).toEqual([]);
    } catch (error) {
      throw new Error(`seed ${seed}: ${error}`, { cause: error });
    }
  }
  expect(mended).toBeGreaterThan(rounds / 5);
});
