/** Q-LIM-1: whatever a qcow2 image holds, it gives bytes or a BlockError, in bounded time, and a repair leaves it usable or says no. */
import { expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import type { Disk } from '../../src/core/disk.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { SeededRandom, SimHost } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';
import { mayRefuse } from './may-refuse.ts';

const SIZE = 200 * 512;

async function sound(options: OptionTree): Promise<Uint8Array> {
  const host = new SimHost({ record: false });
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: SIZE, options });
  const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
  for (let i = 0; i < 12; i++) await disk.write(i * 7000, new Uint8Array(1500).fill(i + 1));
  await disk.close();
  return host.contents(PATH);
}

/** Fields of the header and entries of tables get values that matter; some bytes get any. */
function mutate(bytes: Uint8Array, random: SeededRandom): void {
  const view = new DataView(bytes.buffer);
  const interesting = [
    0n,
    1n,
    0x200n,
    0x10000n,
    0x3ffn,
    1n << 40n,
    1n << 55n,
    1n << 62n,
    1n << 63n,
    (1n << 64n) - 1n,
    0x80000000n,
  ];
  const value = () => random.pick(interesting) + (random.chance(0.3) ? BigInt(random.below(4096)) : 0n);
  for (let i = random.between(1, 4); i > 0; i--) {
    const kind = random.below(4);
    const tables = [40, 48].map((at) => Number(view.getBigUint64(at) % BigInt(Math.max(8, bytes.length - 512))));
    if (kind === 0) view.setUint32(8 + random.below(26) * 4, Number(value() & 0xffffffffn));
    else if (kind === 1) {
      const at = Math.min(bytes.length - 8, random.pick(tables) + random.below(8) * 8);
      view.setBigUint64(
        at,
        (random.chance(0.5) ? (1n << 63n) | BigInt(random.below(200) * 512) : value()) & ((1n << 64n) - 1n),
      );
    } else if (kind === 2) {
      const l2 = Number(view.getBigUint64(Math.min(bytes.length - 8, tables[0] ?? 0)) & 0xffffffe00n);
      const at = Math.min(bytes.length - 8, l2 + random.below(64) * 8);
      view.setBigUint64(
        at,
        (random.chance(0.5) ? (1n << 63n) | BigInt(random.below(300) * 512) : value()) & ((1n << 64n) - 1n),
      );
    } else bytes[random.below(bytes.length)] = random.below(256);
  }
}

async function use(disk: Disk, random: SeededRandom): Promise<void> {
  const length = Math.min(disk.length, 4 * SIZE);
  for (let at = 0; at < length; at += 5000) {
    await mayRefuse(() => disk.read(at, Math.min(5000, length - at)));
    await mayRefuse(() => disk.status(at, length - at));
  }
  if (!disk.writable || length < 2000) return;
  for (let i = 0; i < 6; i++) {
    const offset = random.below(length - 1500);
    await mayRefuse(() => disk.write(offset, new Uint8Array(1200).fill(9)));
    await mayRefuse(() => disk.discard(offset, 1500));
    await mayRefuse(() => disk.writeZeroes(offset, 1500, { unmap: true }));
  }
  await mayRefuse(() => disk.flush());
  if (random.chance(0.4)) await compact(disk, length);
  await mayRefuse(() => disk.resize(SIZE + 512));
}

/** What is said to be sound, and is compacted, holds what it held. */
async function compact(disk: Disk, length: number): Promise<void> {
  const before = await mayRefuse(() => disk.read(0, length));
  const compacted = await mayRefuse(async () => {
    await disk.compact();
    return disk.read(0, length);
  });
  if (before !== undefined && compacted !== undefined) expect(differsAt(compacted, before)).toBe(-1);
}

const rounds = longMode ? 20_000 : 600;

test(`${rounds} broken images`, async () => {
  const shapes: OptionTree[] = [
    { cluster_size: 512 },
    { cluster_size: 512, refcount_bits: 1 },
    { cluster_size: 16384, extended_l2: true },
    { cluster_size: 1024, compat: '0.10' },
    { cluster_size: 512, lazy_refcounts: true },
  ];
  const images = await Promise.all(shapes.map(sound));
  let opened = 0;
  for (let seed = testSeed; seed < testSeed + rounds; seed++) {
    const random = new SeededRandom(seed);
    const bytes = random.pick(images).slice();
    mutate(bytes, random);
    const host = new SimHost({ record: false, operationBudget: 100_000, capacity: 64 << 20 });
    host.put(PATH, bytes);
    const how = random.below(3);
    try {
      const disk = await mayRefuse(() =>
        graphOn(host).open(PATH, { format: 'qcow2', writable: how > 0, checkOnly: how === 2 }),
      );
      if (disk === undefined) continue;
      opened++;
      if (how === 2)
        await mayRefuse(() =>
          disk.check({ repair: random.pick(['none', 'leaks', 'all'] as const), finding: () => {} }),
        );
      await use(disk, random);
      await mayRefuse(() => disk.close());
      expect(host.openFiles).toEqual([]);
    } catch (error) {
      throw new Error(`seed ${seed}: ${error}`, { cause: error });
    }
  }
  expect(opened).toBeGreaterThan(rounds / 10);
});
