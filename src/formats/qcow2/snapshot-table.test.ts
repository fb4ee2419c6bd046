/** The table of snapshots, put into images by hand: how long it is, and that nothing is written over it. */
import { expect, test } from 'vitest';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import type { OptionTree } from '../../core/options.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import { SimHost } from '../../testing/index.ts';

/** Bytes of an entry's fixed part. */
const FIXED = 40;

interface Table {
  /** Bytes of extra data, and of the name; the id is one more. */
  readonly extra: number;
  readonly name: number;
}

/**
 * An image of one data cluster, and behind it the table of one snapshot that holds nothing. `entry`: makes the second
 * cluster's L2 entry of the table's place.
 */
async function imageWith(options: OptionTree, { extra, name }: Table, entry?: (place: bigint) => bigint) {
  const host = new SimHost({ record: false });
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: 1 << 17, options });
  const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
  await disk.write(0, new Uint8Array(512).fill(1));
  await disk.close();
  const made = host.contents(PATH);
  const cluster = 2 ** new DataView(made.buffer).getUint32(20);
  const place = Math.ceil(made.length / cluster) * cluster;
  const bytes = new Uint8Array(place + cluster);
  bytes.set(made);
  const view = new DataView(bytes.buffer);
  view.setUint32(60, 1);
  view.setBigUint64(64, BigInt(place));
  view.setUint16(place + 12, 1);
  view.setUint16(place + 14, name);
  view.setUint32(place + 36, extra);
  bytes.fill(0x31, place + FIXED + extra, place + FIXED + extra + 1 + name);
  // Counts of 16 bits, in the block behind header and table.
  view.setUint16(2 * cluster + (place / cluster) * 2, 1);
  const l2 = Number(view.getBigUint64(Number(view.getBigUint64(40))) & 0x00fffffffffffe00n);
  if (entry !== undefined) view.setBigUint64(l2 + 8, entry(BigInt(place)));
  host.put(PATH, bytes);
  return { host, cluster };
}

test.each([
  ['without extra data', { compat: '0.10' }, { extra: 0, name: 460 }],
  ['with 16 bytes of extra data', {}, { extra: 16, name: 450 }],
  ['with more extra data than is known', {}, { extra: 32, name: 439 }],
])('Q-SNAP-1: an entry is as long as it says, %s', async (_name, options: OptionTree, table) => {
  const { host } = await imageWith({ ...options, cluster_size: 512 }, table);
  const disk = await graphOn(host).open(PATH, { format: 'qcow2' });
  const findings: string[] = [];
  const report = await disk.check({ repair: 'none', finding: (line) => void findings.push(line) });
  await disk.close();
  expect(findings).toEqual([]);
  expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
});

test('Q-CORR-2, Q-CORR-3: nothing is written over the snapshot table', async () => {
  const table = { extra: 16, name: 1 };
  const { host, cluster } = await imageWith({}, table, (place) => (1n << 63n) | place);
  const before = host.contents(PATH);
  const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
  await expect(disk.write(cluster, new Uint8Array(512))).rejects.toThrow(
    'Preventing invalid write on metadata (overlaps with snapshot table)',
  );
  await disk.close();
  expect(differsAt(host.contents(PATH).subarray(512), before.subarray(512))).toBe(-1);
});
