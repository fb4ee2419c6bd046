/** Snapshot tables that are damaged, put into images by hand: opened, checked and repaired (Q-SNAP-2, Q-CHK-1, -3, -4). */
import { beforeAll, describe, expect, test } from 'vitest';
import { readQcow2 } from '../../../tests/support/qcow2-bytes.ts';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import type { Child, RepairMode } from '../../core/driver.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import { operationData } from '../../testing/disk-operations.ts';
import { SimHost } from '../../testing/index.ts';
import type { Qcow2Header } from './header.ts';
import { readSnapshotTable } from './snapshot-table.ts';

const CLUSTER = 4096;
/** Bytes of an entry before the extra data, and of these. */
const [FIXED, EXTRA] = [40, 24];

let sound: Uint8Array;
beforeAll(async () => {
  const host = new SimHost({ record: false });
  const options = { cluster_size: CLUSTER };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: 20 * CLUSTER, options });
  const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
  await disk.write(0, operationData(1, 3 * CLUSTER));
  await disk.snapshots.create('s1');
  await disk.write(0, operationData(2, CLUSTER));
  await disk.close();
  sound = host.contents(PATH);
});

function damaged(change: (view: DataView, table: number) => void): SimHost {
  const host = new SimHost({ record: false });
  const bytes = new Uint8Array(sound.length + 2 * CLUSTER);
  bytes.set(sound);
  const view = new DataView(bytes.buffer);
  change(view, Number(view.getBigUint64(64)));
  host.put(PATH, bytes.subarray(0, sound.length));
  return host;
}

async function check(host: SimHost, repair: RepairMode) {
  const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: repair !== 'none', checkOnly: true });
  const findings: string[] = [];
  try {
    return { report: await disk.check({ repair, finding: (line) => void findings.push(line) }), findings };
  } finally {
    await disk.close();
  }
}

const open = (host: SimHost) => graphOn(host).open(PATH, { format: 'qcow2' });

/** Takes the extra data of the first entry down to some bytes. */
function shortened(view: DataView, table: number, extra: number): void {
  const [from, to] = [table + FIXED + EXTRA, table + FIXED + extra];
  for (let i = 0; i < 3; i++) view.setUint8(to + i, view.getUint8(from + i));
  view.setUint32(table + 36, extra);
}

const LEAKED = expect.arrayContaining([expect.stringMatching(/^Leaked cluster/)]);

describe('Q-SNAP-2, Q-CHK-4: a table that cannot be used', () => {
  const EXTRA_HINT = 'You can force-remove this extra metadata with qemu-img check -r all';

  test('too much extra data: refused, and cut off by a repair of all', async () => {
    const host = damaged((view, table) => view.setUint32(table + 36, 1025));
    const text = 'Too much extra metadata in snapshot table entry 0';
    await expect(open(host)).rejects.toMatchObject({ code: 'EFBIG', message: text, hint: EXTRA_HINT });
    for (const mode of ['none', 'leaks'] as const) {
      const message = `ERROR failed to read the snapshot table: ${text}`;
      await expect(check(host, mode)).rejects.toMatchObject({ code: 'EFBIG', message, hint: EXTRA_HINT });
    }
    const { report, findings } = await check(host, 'all');
    expect(findings).toContain('Discarding too much extra metadata in snapshot table entry 0 (1025 > 1024)');
    expect(report).toMatchObject({ corruptions: 0, checkErrors: 0 });
    expect(report.corruptionsFixed).toBeGreaterThan(0);
    const again = await check(host, 'none');
    expect(again).toMatchObject({ findings: [], report: { corruptions: 0, leaks: 0 } });
  });

  test('more snapshots than there may be', async () => {
    const host = damaged((view) => view.setUint32(60, 70_000));
    await expect(open(host)).rejects.toThrow('Snapshot table too large');
    await expect(check(host, 'none')).rejects.toMatchObject({
      code: 'EFBIG',
      message: 'ERROR snapshot table too large',
      hint: 'You can force-remove all 4464 overhanging snapshots with qemu-img check -r all',
    });
  });

  test('in a place where no table can be', async () => {
    const host = damaged((view, table) => view.setBigUint64(64, BigInt(table + 8)));
    await expect(open(host)).rejects.toThrow('Snapshot table offset invalid');
    const message = 'ERROR snapshot table offset invalid';
    await expect(check(host, 'all')).rejects.toMatchObject({ code: 'EINVAL', message });
  });

  test('longer than 64 MiB: read up to there by a repair', async () => {
    // Entries of one size, with names as long as can be, as far as anyone reads.
    const bytes = FIXED + 65_536;
    const lengths = [0, 1, 0xff, 0xff];
    const read = async (offset: number, target: Uint8Array) => {
      const first = Math.floor(offset / bytes) * bytes + 12;
      for (let at = first; at < offset + target.length; at += bytes) {
        for (const [i, value] of lengths.entries()) if (at + i >= offset) target[at + i - offset] = value;
      }
    };
    const file = { length: () => 2 ** 40, read } as unknown as Child;
    const header = { snapshotTableOffset: 0, clusterBits: 16 } as Qcow2Header;
    const rest = 1200 - Math.floor((64 << 20) / bytes);
    await expect(readSnapshotTable(file, header, 1200)).rejects.toMatchObject({
      code: 'EFBIG',
      message: 'Snapshot table is too big',
      hint: `You can force-remove all ${rest} overhanging snapshots with qemu-img check -r all`,
    });
    const cuts: number[] = [];
    const kept = await readSnapshotTable(file, header, 1200, {
      extraCut: () => {},
      entriesCut: (count) => void cuts.push(count),
    });
    expect([cuts, kept.length]).toEqual([[rest], 1200 - rest]);
  });
});

describe('Q-CHK-3: what is wrong with entries', () => {
  test.each([
    ['without extra data', 0],
    ['with half of what is needed', 8],
  ])('incomplete, %s: mended by a repair of all', async (_name, extra) => {
    const host = damaged((view, table) => shortened(view, table, extra));
    const { report, findings } = await check(host, 'none');
    expect(findings).toEqual(['ERROR snapshot table entry 0 is incomplete']);
    expect(report).toMatchObject({ corruptions: 1, leaks: 0 });
    expect((await check(host, 'leaks')).report).toMatchObject({ corruptions: 1, corruptionsFixed: 0 });
    const repaired = await check(host, 'all');
    expect(repaired.findings).toEqual(['Repairing snapshot table entry 0 is incomplete']);
    expect(repaired.report).toMatchObject({ corruptions: 0, corruptionsFixed: 1 });
    expect(await check(host, 'none')).toMatchObject({ findings: [], report: { corruptions: 0, leaks: 0 } });
    const disk = await open(host);
    expect(disk.snapshots.list()).toMatchObject([{ id: '1', name: 's1', diskSize: 20 * CLUSTER }]);
    await disk.close();
    expect(readQcow2(host.contents(PATH)).problems).toEqual([]);
  });

  test.each<[string, (view: DataView, table: number) => void, string]>([
    [
      'an L1 table out of line',
      (view, table) => view.setBigUint64(table, 0x1234n),
      'ERROR snapshot 1 (s1) l1_offset=0x1234: L1 table is not cluster aligned; snapshot table entry corrupted',
    ],
    [
      'an L1 table that is too large',
      (view, table) => view.setUint32(table + 8, 0x20000000),
      'ERROR snapshot 1 (s1) l1_size=0x20000000: L1 table is too large; snapshot table entry corrupted',
    ],
    [
      'an L1 table past the end',
      (view, table) => view.setBigUint64(table, 0x20000000n),
      'ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x20000000 size 0x8',
    ],
  ])('%s: told of, and what it had looks leaked', async (_name, change, text) => {
    const host = damaged(change);
    const { report, findings } = await check(host, 'none');
    expect(findings[0]).toBe(text);
    expect(findings).toEqual(LEAKED);
    expect(report.corruptions).toBe(1);
    // The snapshot cannot be used, and the image is left as it is.
    const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
    const before = host.contents(PATH);
    await expect(disk.snapshots.apply('s1')).rejects.toThrow(
      /^(Snapshot L1 table (offset invalid|too large)|Failed to)/,
    );
    await expect(disk.snapshots.delete('s1')).rejects.toThrow(
      /^(Snapshot L1 table (offset invalid|too large)|Failed to)/,
    );
    await disk.close();
    expect(differsAt(host.contents(PATH), before)).toBe(-1);
  });

  test('entries of L2 tables that cannot be: refused, and nothing changes', async () => {
    const patches: ((view: DataView, l2: number) => void)[] = [
      (view, l2) => view.setBigUint64(l2 + 8, 0x1200n),
      (view, l2) => view.setBigUint64(l2 + 8, BigInt(1000 * CLUSTER)),
      (view, l2) => view.setBigUint64(l2 + 8, 2n ** 55n),
    ];
    for (const patch of patches) {
      const host = damaged((view) => {
        const l1 = Number(view.getBigUint64(40));
        patch(view, Number(view.getBigUint64(l1) & 0x00fffffffffffe00n));
      });
      const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
      const before = disk.snapshots.list();
      await expect(disk.snapshots.create('x')).rejects.toMatchObject({ code: 'EIO' });
      expect(disk.snapshots.list()).toEqual(before);
      await disk.close();
    }
  });

  test('Q-LIM-1: an L1 table that names one L2 table again and again is not walked so', async () => {
    const host = damaged((view, table) => {
      const l1 = Number(view.getBigUint64(table));
      for (let i = 1; i < 3; i++) view.setBigUint64(l1 + i * 8, view.getBigUint64(l1));
      view.setUint32(table + 8, 3);
    });
    const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
    await expect(disk.snapshots.apply('s1')).rejects.toThrow('is named twice by one L1 table');
    await disk.close();
  });

  test('Q-DATA-3: snapshots in an image with a data file', async () => {
    const host = new SimHost({ record: false });
    const options = { cluster_size: CLUSTER, data_file: '/disk.data' };
    await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: 20 * CLUSTER, options });
    const made = host.contents(PATH);
    const place = Math.ceil(made.length / CLUSTER) * CLUSTER;
    const bytes = new Uint8Array(place + CLUSTER);
    bytes.set(made);
    const view = new DataView(bytes.buffer);
    view.setUint32(60, 1);
    view.setBigUint64(64, BigInt(place));
    view.setUint32(place + 36, EXTRA);
    view.setUint16(2 * CLUSTER + (place / CLUSTER) * 2, 1);
    host.put(PATH, bytes);
    expect((await check(host, 'none')).findings).toEqual(['ERROR 1 snapshots in image with data file']);
  });
});
