/** A block device as an image: by us, by qemu-img and qemu-io, in turn. Needs the right to make a loop device. */
import { spawnSync } from 'node:child_process';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { nodeHost } from '../../src/node/host.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { failureOf } from '../engine/storage.ts';
import { inFolder, peersMissing, qemuImg, qemuImgOk, qemuIo, skipNote } from './peer.ts';

const MIB = 1 << 20;
const SIZE = 8 * MIB;

/** Runs `work` on a device of 8 MiB; a reason when there can be none. */
async function onDevice(work: (device: string, graph: Graph) => Promise<void>): Promise<string | undefined> {
  return inFolder(async (folder) => {
    const backing = join(folder, 'device');
    writeFileSync(backing, '');
    truncateSync(backing, SIZE);
    const made = spawnSync('losetup', ['--find', '--show', backing], { encoding: 'utf8' });
    if (made.status !== 0) return `no loop device: ${made.error?.message ?? made.stderr.trim()}`;
    const device = made.stdout.trim();
    try {
      const graph = new Graph({ host: nodeHost({ warn() {} }), drivers: DRIVERS });
      await work(device, graph);
      expect(graph.nodes()).toEqual([]);
      return undefined;
    } finally {
      spawnSync('losetup', ['--detach', device]);
    }
  });
}

function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 7 + (index >> 8)) & 0xff);
}

describe.skipIf(peersMissing !== undefined)(`block devices${skipNote} (skipped without a loop device)`, () => {
  test('any alignment is read, written, zeroed and discarded', async (context) => {
    const reason = await onDevice(async (device, graph) => {
      const model = pattern(SIZE);
      for (const cache of ['writeback', 'none'] as const) {
        await using disk = await graph.open(device, { format: 'raw', writable: true, cache });
        expect(disk.length).toBe(SIZE);
        await disk.write(0, model);
        await disk.write(12_345, new Uint8Array(1000).fill(1));
        model.fill(1, 12_345, 13_345);
        for (const [offset, length, unmap] of [
          [100, 300, false],
          [5000, 2 * MIB + 77, false],
          [4 * MIB + 1, MIB, true],
          [SIZE - 513, 513, true],
        ] as const) {
          await disk.writeZeroes(offset, length, { unmap });
          model.fill(0, offset, offset + length);
        }
        await disk.flush();
        expect(differsAt(await disk.read(0, SIZE), model)).toBe(-1);
        // What a discard leaves is up to the device, beside it nothing changes.
        await disk.discard(3 * MIB + 5, 10_000);
        expect(differsAt(await disk.read(0, 3 * MIB + 5), model.subarray(0, 3 * MIB + 5))).toBe(-1);
        const after = 3 * MIB + 10_005;
        expect(differsAt(await disk.read(after, SIZE - after), model.subarray(after))).toBe(-1);
      }
    });
    if (reason !== undefined) context.skip(reason);
  });

  test('an image on it is the same to both', async (context) => {
    const reason = await onDevice(async (device, graph) => {
      await createImage(graph, { filename: device, format: 'vdi', size: 4 * MIB });
      await using disk = await graph.open(device, { format: 'vdi', writable: true });
      await disk.write(MIB - 100, new Uint8Array(200).fill(9));
      await disk.close();
      qemuIo('vdi', device, [`read -P 9 ${MIB - 100} 200`, `read -P 0 0 ${MIB - 100}`, `write -P 5 ${2 * MIB} 64k`]);
      expect(qemuImg('check', '-q', '-f', 'vdi', device).status).toBe(0);
      await using again = await graph.open(device, { format: 'vdi' });
      expect(await again.read(2 * MIB + 65_535, 2)).toEqual(Uint8Array.of(5, 0));
    });
    if (reason !== undefined) context.skip(reason);
  });

  test('its size stays, in the words of qemu-img', async (context) => {
    const reason = await onDevice(async (device, graph) => {
      const size = SIZE + MIB;
      const grown = qemuImg('create', '-q', '-f', 'raw', device, String(size)).stderr;
      const failure = await failureOf(createImage(graph, { filename: device, format: 'raw', size }));
      expect(`qemu-img: ${device}: ${failure.message}\n`).toBe(grown);
      for (const [how, options] of [
        [[String(size)], {}],
        [['--shrink', String(MIB)], { shrink: true }],
        [['--preallocation=full', String(size)], { preallocation: 'full' }],
      ] as const) {
        const peer = qemuImg('resize', '-q', '-f', 'raw', ...how.slice(0, -1), device, how.at(-1) ?? '').stderr;
        await using disk = await graph.open(device, { format: 'raw', writable: true });
        const ours = await failureOf(disk.resize(Number(how.at(-1)), { exact: true, ...options }));
        expect(`qemu-img: ${ours.message}\n`).toBe(peer.split('\n').at(-2)?.concat('\n'));
      }
      for (const name of [`file:${device}`, `json:{"driver":"file","filename":"${device}"}`]) {
        const ours = await failureOf(graph.open(name));
        expect(qemuImg('info', name).stderr).toBe(`qemu-img: Could not open '${name}': ${ours.message}\n`);
      }
      expect(qemuImgOk('info', `host_device:${device}`)).toContain(`image: ${device}\n`);
      await using named = await graph.open(`host_device:${device}`);
      expect(named.filename).toBe(device);
    });
    if (reason !== undefined) context.skip(reason);
  });
});
