/** Snapshots inside qcow2 images (Q-SNAP): what they keep, what is refused, in which words, and what a failure leaves. */
import { describe, expect, test } from 'vitest';
import { readQcow2 } from '../../../tests/support/qcow2-bytes.ts';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import { isSuspended, resumeBreakpoint, setBreakpoint } from '../../core/debug.ts';
import type { Disk } from '../../core/disk.ts';
import { Graph } from '../../core/graph.ts';
import type { OptionTree } from '../../core/options.ts';
import { DRIVERS } from '../../drivers.ts';
import { blkdebugOf } from '../../filters/blkdebug/control.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import { operationData } from '../../testing/disk-operations.ts';
import { SimHost } from '../../testing/index.ts';

const CLUSTER = 512;
const SMALL: OptionTree = { cluster_size: CLUSTER };

async function newImage(options: OptionTree = SMALL, size = 40 * CLUSTER): Promise<SimHost> {
  const host = new SimHost({ record: false });
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size, options });
  return host;
}

function open(host: SimHost, writable = true): Promise<Disk> {
  return graphOn(host).open(PATH, { format: 'qcow2', writable });
}

const data = (seed: number, length = CLUSTER) => operationData(seed, length);

/** Neither damage nor leaks, in the eyes of the check and of a reader that is none of ours. */
async function expectSound(host: SimHost): Promise<void> {
  const { problems, leaks } = readQcow2(host.contents(PATH));
  expect([problems, leaks]).toEqual([[], []]);
  const disk = await open(host, false);
  const findings: string[] = [];
  const report = await disk.check({ repair: 'none', finding: (line) => void findings.push(line) });
  await disk.close();
  expect(findings).toEqual([]);
  expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
}

const all = (disk: Disk) => disk.read(0, disk.length);

describe('snapshots are kept', () => {
  test('Q-SNAP-4, Q-SNAP-5: what was is there again, and what is stays in the other snapshot', async () => {
    const host = await newImage();
    const disk = await open(host);
    await disk.write(0, data(1, 3000));
    const first = await all(disk);
    await disk.snapshots.create('first');
    await disk.write(700, data(2, 2000));
    await disk.writeZeroes(0, 512);
    const second = await all(disk);
    await disk.snapshots.create('second');
    await disk.discard(0, 20 * CLUSTER);
    await disk.snapshots.apply('first');
    expect(differsAt(await all(disk), first)).toBe(-1);
    await disk.write(100, data(3, 100));
    await disk.snapshots.apply('second');
    expect(differsAt(await all(disk), second)).toBe(-1);
    await disk.close();
    await expectSound(host);
    const view = readQcow2(host.contents(PATH));
    expect(view.snapshots.map(({ name }) => name)).toEqual(['first', 'second']);
    expect(view.snapshots.map((each, i) => differsAt(each.content(), [first, second][i] ?? first))).toEqual([-1, -1]);
  });

  test('Q-WR-1, Q-WR-2, Q-REF-2: writing in place, on shared clusters and shared L2 tables, leaves snapshots alone', async () => {
    const host = await newImage();
    const disk = await open(host);
    await disk.write(0, data(1, 20 * CLUSTER));
    const kept = await all(disk);
    await disk.snapshots.create();
    for (let turn = 0; turn < 3; turn++) await disk.write(turn * 777, data(turn + 5, 400));
    await disk.flush();
    await disk.write(777, data(9, 300));
    await disk.close();
    const view = readQcow2(host.contents(PATH));
    expect(differsAt(view.snapshots[0]?.content() ?? new Uint8Array(0), kept)).toBe(-1);
    await expectSound(host);
  });

  test('Q-SNAP-6: a deleted snapshot frees what only it had; copied bits are right again', async () => {
    const host = await newImage();
    const disk = await open(host);
    await disk.write(0, data(1, 20 * CLUSTER));
    await disk.snapshots.create('a');
    await disk.write(0, data(2, 10 * CLUSTER));
    await disk.snapshots.create('b');
    await disk.flush();
    const content = await all(disk);
    await disk.snapshots.delete('a');
    await disk.snapshots.delete('b');
    expect(disk.snapshots.list()).toEqual([]);
    expect(differsAt(await all(disk), content)).toBe(-1);
    await disk.close();
    await expectSound(host);
    const { entries } = readQcow2(host.contents(PATH));
    expect([...entries.values()].every(({ entry }) => entry >> 63n === 1n)).toBe(true);
  });

  test('Q-SNAP-5: the disk gets the size that it had, both ways', async () => {
    const host = await newImage();
    const disk = await open(host);
    await disk.write(39 * CLUSTER, data(1));
    await disk.snapshots.create('small');
    await disk.resize(5000 * CLUSTER);
    await disk.write(4999 * CLUSTER, data(2));
    await disk.snapshots.create('large');
    await disk.snapshots.apply('small');
    expect(disk.length).toBe(40 * CLUSTER);
    expect(differsAt(await disk.read(39 * CLUSTER, CLUSTER), data(1))).toBe(-1);
    await expect(disk.read(40 * CLUSTER, 1)).rejects.toThrow('it ends at');
    await disk.snapshots.apply('large');
    expect(disk.length).toBe(5000 * CLUSTER);
    expect(differsAt(await disk.read(4999 * CLUSTER, CLUSTER), data(2))).toBe(-1);
    await disk.close();
    await expectSound(host);
    expect(readQcow2(host.contents(PATH)).snapshots.map(({ size }) => size)).toEqual([40 * CLUSTER, 5000 * CLUSTER]);
  });

  test('Q-SIZE-3: shrinking keeps what snapshots have', async () => {
    const host = await newImage();
    const disk = await open(host);
    await disk.write(0, data(1, 40 * CLUSTER));
    const kept = await all(disk);
    await disk.snapshots.create('before');
    await disk.resize(CLUSTER, { shrink: true });
    await disk.resize(40 * CLUSTER);
    expect((await disk.read(CLUSTER, CLUSTER)).every((byte) => byte === 0)).toBe(true);
    await disk.snapshots.apply('before');
    expect(differsAt(await all(disk), kept)).toBe(-1);
    await disk.close();
    await expectSound(host);
  });

  test('backing files, subclusters, compressed clusters and other widths', async () => {
    const below = operationData(7, 3 * 16384);
    for (const options of [
      { cluster_size: 16384, extended_l2: true, backing_file: '/below.raw', backing_fmt: 'raw' },
      { cluster_size: 512, refcount_bits: 2 },
      { cluster_size: 1024, refcount_bits: 64, lazy_refcounts: true },
      { cluster_size: 4096, compat: '0.10' },
    ] satisfies OptionTree[]) {
      const host = new SimHost({ record: false });
      host.put('/below.raw', below);
      await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: 4 * 16384, options });
      const disk = await open(host);
      await disk.write(1000, data(1, 9000));
      const kept = await all(disk);
      await disk.snapshots.create('x');
      await disk.write(3000, data(2, 900));
      await disk.writeZeroes(0, 8192);
      await disk.snapshots.apply('x');
      expect(differsAt(await all(disk), kept)).toBe(-1);
      await disk.write(5, data(3, 10));
      await disk.snapshots.delete('x');
      await disk.close();
      await expectSound(host);
    }
  });

  test('Q-REF-4: what two snapshots and the disk share is counted as often afterwards, and never more often between', async () => {
    const host = await newImage({ ...SMALL, refcount_bits: 2 });
    const disk = await open(host);
    await disk.write(0, data(1, 4000));
    const kept = await all(disk);
    await disk.snapshots.create('a');
    await disk.snapshots.create('b');
    await disk.snapshots.apply('a');
    await expect(disk.snapshots.create('c')).rejects.toThrow('refcount width of 2 bits cannot hold another reference');
    await disk.snapshots.delete('b');
    expect(differsAt(await all(disk), kept)).toBe(-1);
    await disk.close();
    await expectSound(host);
  });

  test('Q-REF-6: more refcount blocks than the refcount table has room for', async () => {
    const host = await newImage({ ...SMALL, refcount_bits: 64 }, 4000 * CLUSTER);
    const disk = await open(host);
    await disk.write(0, data(1, 3930 * CLUSTER));
    await disk.flush();
    const clustersOf = () => new DataView(host.contents(PATH).buffer).getUint32(56);
    const before = clustersOf();
    await disk.snapshots.create('x');
    expect(clustersOf()).toBeGreaterThan(before);
    await disk.write(0, data(2));
    await disk.snapshots.apply('x');
    expect(differsAt(await all(disk), data(1, 3930 * CLUSTER))).toBe(3930 * CLUSTER);
    await disk.snapshots.delete('x');
    await disk.close();
    await expectSound(host);
  });

  test('Q-LIM-1, Q-SNAP-4: ids count up from the largest, names repeat, be empty and long', async () => {
    const host = await newImage();
    const disk = await open(host);
    const long = 'n'.repeat(65535);
    for (const name of ['a', 'a', '', long]) await disk.snapshots.create(name);
    await disk.snapshots.delete('2');
    await disk.snapshots.create('b');
    expect(disk.snapshots.list().map(({ id, name }) => [id, name])).toEqual([
      ['1', 'a'],
      ['3', ''],
      ['4', long],
      ['5', 'b'],
    ]);
    await expect(disk.snapshots.create(`${long}n`)).rejects.toMatchObject({ code: 'ENAMETOOLONG' });
    expect(disk.snapshots.find({ name: '' })?.id).toBe('3');
    expect(disk.snapshots.find({ id: '1', name: 'b' })).toBeUndefined();
    expect(disk.snapshots.find({})).toBeUndefined();
    await disk.close();
    await expectSound(host);
  });

  test('Q-SNAP-1: time, clock, state size and instructions are as they were given', async () => {
    const host = await newImage();
    const disk = await open(host);
    const facts = { time: 1_700_000_000_123, vmStateSize: 5 * 2 ** 32, vmClock: 2n ** 63n + 5n, instructionCount: 77n };
    const made = await disk.snapshots.create('x', facts);
    expect(made).toEqual({ id: '1', name: 'x', nanoseconds: 123_000_000, diskSize: 40 * CLUSTER, ...facts });
    await disk.close();
    const bytes = host.contents(PATH);
    const view = new DataView(bytes.buffer);
    // A state of 4 GiB or more is not in the old field.
    expect(view.getUint32(Number(view.getBigUint64(64)) + 32)).toBe(0);
    const again = await open(host, false);
    expect(again.snapshots.list()).toEqual([made]);
    await again.close();
  });
});

describe('machine state', () => {
  test('Q-SNAP-3, Q-SNAP-4, Q-WR-2: it lies behind the disk, goes to the snapshot, and comes back with it', async () => {
    const host = await newImage();
    const disk = await open(host);
    await disk.write(0, data(1, 40 * CLUSTER));
    const state = data(2, 300 * CLUSTER);
    await disk.snapshots.vmState.write(0, state);
    await disk.snapshots.vmState.write(90 * CLUSTER, state.subarray(90 * CLUSTER, 91 * CLUSTER));
    expect(differsAt(await disk.snapshots.vmState.read(0, state.length), state)).toBe(-1);
    expect(disk.length).toBe(40 * CLUSTER);
    await disk.snapshots.create('running', { vmStateSize: state.length });
    expect((await disk.snapshots.vmState.read(0, 4096)).every((byte) => byte === 0)).toBe(true);
    await disk.write(0, data(3));
    await disk.snapshots.apply('running');
    expect(differsAt(await disk.snapshots.vmState.read(0, state.length), state)).toBe(-1);
    await disk.snapshots.delete('running');
    await disk.resize(41 * CLUSTER);
    await disk.resize(5000 * CLUSTER);
    expect((await disk.read(41 * CLUSTER, 500 * CLUSTER)).every((byte) => byte === 0)).toBe(true);
    await disk.close();
    await expectSound(host);
  });

  test('Q-EV-2: events tell of it', async () => {
    const host = await newImage();
    const graph = new Graph({ host, drivers: DRIVERS });
    const file = { driver: 'blkdebug', image: { driver: 'file', filename: PATH } };
    const disk = await graph.open({ driver: 'qcow2', file }, { writable: true });
    const { vmState } = disk.snapshots;
    const works = { vmstate_save: () => vmState.write(0, data(1)), vmstate_load: () => vmState.read(0, CLUSTER) };
    for (const [event, work] of Object.entries(works)) {
      setBreakpoint(disk.node, event, event);
      const done = work();
      while (!isSuspended(disk.node, event)) await host.clock.sleep(1);
      resumeBreakpoint(disk.node, event);
      await done;
    }
    await disk.close();
    await expectSound(host);
  });

  test.each(['refblock_alloc', 'refblock_load', 'refblock_update_part'] as const)(
    'Q-EV-1: an error at %s is met by snapshots too, and leaves the image as it was',
    async (event) => {
      const host = await newImage();
      const graph = new Graph({ host, drivers: DRIVERS });
      const file = { driver: 'blkdebug', image: { driver: 'file', filename: PATH } };
      const disk = await graph.open({ driver: 'qcow2', file }, { writable: true });
      await disk.write(0, data(1));
      await disk.flush();
      await disk.snapshots.create('first');
      const node = disk.node.child('file')?.node;
      if (node === undefined) throw new Error('the filter is open');
      const { snapshots } = disk;
      for (const work of [
        () => snapshots.create('second'),
        () => snapshots.apply('first'),
        () => snapshots.delete('first'),
      ]) {
        const rule = blkdebugOf(node).add({ event, errno: 'EIO', once: true });
        await expect(work()).rejects.toMatchObject({ code: 'EIO' });
        expect(
          blkdebugOf(node)
            .rules()
            .map(({ id }) => id),
        ).not.toContain(rule);
      }
      expect(snapshots.list().map(({ name }) => name)).toEqual(['first']);
      await disk.close();
      await expectSound(host);
    },
  );

  test('a longer backing file does not shine through', async () => {
    const host = new SimHost({ record: false });
    host.put('/below.raw', operationData(1, 400 * CLUSTER));
    const options = { ...SMALL, backing_file: '/below.raw', backing_fmt: 'raw' };
    await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: 10 * CLUSTER, options });
    const disk = await open(host);
    expect((await disk.snapshots.vmState.read(0, 4096)).every((byte) => byte === 0)).toBe(true);
    await disk.snapshots.vmState.write(100, data(1, 10));
    const written = await disk.snapshots.vmState.read(0, CLUSTER);
    expect(written.filter((byte) => byte !== 0).length).toBeLessThanOrEqual(10);
    await disk.close();
    await expectSound(host);
  });
});

describe('a snapshot is shown', () => {
  test('Q-SNAP-7: with its content and its size, without a change of the image', async () => {
    const host = await newImage();
    const disk = await open(host);
    await disk.write(0, data(1, 4000));
    const kept = await all(disk);
    await disk.snapshots.create('x');
    await disk.resize(200 * CLUSTER);
    await disk.write(0, data(2, 4000));
    await expect(disk.snapshots.show('x')).rejects.toMatchObject({ code: 'EINVAL', message: 'Device is not readonly' });
    await disk.close();
    const before = host.contents(PATH);
    const reader = await open(host, false);
    await expect(reader.snapshots.show('y')).rejects.toMatchObject({ code: 'ENOENT', message: "Can't find snapshot" });
    await reader.snapshots.show('x');
    expect(reader.length).toBe(40 * CLUSTER);
    expect(differsAt(await all(reader), kept)).toBe(-1);
    await expect(reader.check({ repair: 'none', finding: () => {} })).rejects.toMatchObject({ code: 'EBUSY' });
    const { graph, node } = reader;
    await expect(graph.reopen([{ node, options: { 'read-only': false } }])).rejects.toMatchObject({ code: 'EBUSY' });
    await reader.close();
    expect(differsAt(host.contents(PATH), before)).toBe(-1);
  });
});

describe('refusals', () => {
  test('Q-SNAP-5, Q-SNAP-6: what is not there', async () => {
    const host = await newImage();
    const disk = await open(host);
    await expect(disk.snapshots.apply('x')).rejects.toMatchObject({
      code: 'ENOENT',
      message: 'Failed to load snapshot: No such file or directory',
    });
    await expect(disk.snapshots.delete('x')).rejects.toMatchObject({ message: "Can't find the snapshot" });
    await disk.close();
    const reader = await open(host, false);
    await expect(reader.snapshots.create('x')).rejects.toMatchObject({ code: 'EPERM' });
    await reader.close();
  });

  test('Q-DATA-3: images with a data file', async () => {
    const host = await newImage({ ...SMALL, data_file: '/disk.data' });
    const disk = await open(host);
    for (const work of [
      () => disk.snapshots.create('x'),
      () => disk.snapshots.apply('x'),
      () => disk.snapshots.delete('x'),
    ]) {
      await expect(work()).rejects.toMatchObject({ code: 'ENOTSUP' });
    }
    expect(() => disk.snapshots.list()).toThrow('Operation not supported');
    await disk.close();
  });

  test('formats without snapshots', async () => {
    const host = new SimHost({ record: false });
    host.put('/raw', new Uint8Array(4096));
    const disk = await graphOn(host).open('/raw', { format: 'raw', writable: true });
    expect(disk.snapshots.supported).toBe(false);
    await expect(disk.snapshots.apply('x')).rejects.toThrow('Block driver does not support snapshots');
    await expect(disk.snapshots.show('x')).rejects.toThrow(
      "Block format 'raw' used by device '' does not support temporarily loading internal snapshots",
    );
    await expect(disk.snapshots.vmState.read(0, 1)).rejects.toMatchObject({ code: 'ENOTSUP' });
    await disk.close();
  });

  test('Q-SIZE-1: version 2 with snapshots keeps its size', async () => {
    const host = await newImage({ ...SMALL, compat: '0.10' });
    const disk = await open(host);
    await disk.snapshots.create('x');
    await expect(disk.resize(80 * CLUSTER)).rejects.toThrow("Can't resize a v2 image which has snapshots");
    await disk.close();
    await expectSound(host);
  });

  test('Q-REF-4: counts of one bit', async () => {
    const host = await newImage({ ...SMALL, refcount_bits: 1 });
    const disk = await open(host);
    await disk.write(0, data(1));
    const before = await all(disk);
    await expect(disk.snapshots.create('x')).rejects.toMatchObject({
      code: 'EINVAL',
      message: 'refcount width of 1 bits cannot hold another reference',
    });
    expect(differsAt(await all(disk), before)).toBe(-1);
    await disk.close();
    // As in QEMU, nothing is allocated when nothing is stored.
    await expectSound(host);
  });

  test('an aborted one leaves the image as it was', async () => {
    const host = await newImage();
    const disk = await open(host);
    await disk.write(0, data(1, 4000));
    const reason = new Error('enough');
    const options = { signal: AbortSignal.abort(reason) };
    await expect(disk.snapshots.create('x', options)).rejects.toBe(reason);
    expect(disk.snapshots.list()).toEqual([]);
    await disk.close();
    await expectSound(host);
  });
});
