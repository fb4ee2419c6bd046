/** VDI layouts both ways with qemu-img: options of creation, maps without room to grow, refusals and findings in the same words. */
import { closeSync, openSync, readSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import type { Disk } from '../../src/core/disk.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { nodeHost } from '../../src/node/host.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { graphOn } from '../support/sim-disks.ts';
import { FREE, makeVdi, VDI_FIELDS, type VdiField, ZERO } from '../support/vdi-bytes.ts';
import { inFolder, peersMissing, qemuImg, qemuImgOk, qemuIo, skipNote } from './peer.ts';

const MIB = 1 << 20;
const graph = graphOn(nodeHost());

async function ours<T>(path: string, writable: boolean, use: (disk: Disk) => Promise<T>): Promise<T> {
  await using disk = await graph.open(path, { format: 'vdi', writable });
  return await use(disk);
}

/** Writes of 64 KiB and less, the same to the image and to a raw file beside it. */
interface Write {
  readonly offset: number;
  readonly length: number;
  readonly value: number;
}

function rawMirror(folder: string, size: number, writes: readonly Write[]): string {
  const path = join(folder, 'mirror.raw');
  writeFileSync(path, '');
  truncateSync(path, size);
  const file = openSync(path, 'r+');
  for (const { offset, length, value } of writes) {
    const fitting = Math.min(length, size - offset);
    if (fitting > 0) writeSync(file, new Uint8Array(fitting).fill(value), 0, fitting, offset);
  }
  closeSync(file);
  return path;
}

async function writeAll(disk: Disk, writes: readonly Write[]): Promise<void> {
  for (const { offset, length, value } of writes) await disk.write(offset, new Uint8Array(length).fill(value));
}

const asCommands = (writes: readonly Write[]) =>
  writes.map(({ offset, length, value }) => `write -P ${value} ${offset} ${length}`);

/** Both programs find nothing wrong, and the content is the raw file's. */
async function expectSound(path: string, folder: string, size: number, writes: readonly Write[]): Promise<void> {
  expect(qemuImgOk('check', '-f', 'vdi', path)).toBe('No errors were found on the image.\n');
  const mirror = rawMirror(folder, size, writes);
  expect(qemuImgOk('compare', '-f', 'vdi', '-F', 'raw', path, mirror)).toBe('Images are identical.\n');
  await ours(path, false, async (disk) => {
    expect(disk.length).toBe(size);
    const findings: string[] = [];
    const report = await disk.check({ repair: 'none', finding: (line) => void findings.push(line) });
    expect([report.corruptions, report.leaks, findings]).toEqual([0, 0, []]);
    const file = openSync(mirror, 'r');
    for (const { offset, length } of writes) {
      if (offset + length > size) continue;
      const expected = new Uint8Array(length);
      readSync(file, expected, 0, length, offset);
      expect(differsAt(await disk.read(offset, length), expected)).toBe(-1);
    }
    closeSync(file);
  });
}

interface MapExtent {
  readonly start: number;
  readonly length: number;
  readonly zero: boolean;
  readonly data: boolean;
  readonly offset?: number;
}

/** Runs of one kind that lie one behind the other, as one. */
function joined(extents: readonly MapExtent[]): MapExtent[] {
  const result: MapExtent[] = [];
  for (const { start, length, zero, data, offset } of extents) {
    const last = result.at(-1);
    const place = data && offset !== undefined ? { offset } : {};
    const follows =
      last?.zero === zero && last.data === data && (!data || (last.offset ?? 0) + last.length === (offset ?? 0));
    if (last !== undefined && follows) result[result.length - 1] = { ...last, length: last.length + length };
    else result.push({ start, length, zero, data, ...place });
  }
  return result;
}

async function ourMap(path: string): Promise<MapExtent[]> {
  return ours(path, false, async (disk) => {
    const extents: MapExtent[] = [];
    for (let start = 0; start < disk.length; ) {
      const { length, zero, data, at } = await disk.status(start, disk.length - start);
      extents.push({ start, length, zero, data, ...(at === undefined ? {} : { offset: at.offset }) });
      start += length;
    }
    return joined(extents);
  });
}

function theirMap(path: string): MapExtent[] {
  return joined(JSON.parse(qemuImgOk('map', '--output=json', '-f', 'vdi', path)));
}

const SIZES = [0, 512, MIB, 5 * MIB + 512, 128 * MIB, 129 * MIB];
const KINDS: readonly OptionTree[] = [
  {},
  { preallocation: 'metadata' },
  { 'data-align': 512 },
  { static: 'on', 'data-align': 65536 },
];
const COMBINATIONS = KINDS.flatMap((options) => SIZES.map((size) => ({ size, options })));

describe.skipIf(peersMissing !== undefined)(`made by us${skipNote}`, () => {
  test.each(COMBINATIONS)('$size bytes, $options: read, mapped and written by qemu', async ({ size, options }) => {
    await inFolder(async (folder) => {
      const path = join(folder, 'a.vdi');
      const uuid = '01234567-89ab-4cde-8f01-23456789abcd';
      await createImage(graph, {
        filename: path,
        format: 'vdi',
        size,
        options: { ...options, uuid, description: 'x' },
      });
      const info = JSON.parse(qemuImgOk('info', '--output=json', path));
      expect(info).toMatchObject({ format: 'vdi', 'virtual-size': size, 'cluster-size': MIB });
      await expectSound(path, folder, size, []);
      if (size < 5 * MIB) return;
      const first = [
        { offset: 3 * MIB - 1024, length: 2048, value: 1 },
        { offset: size - 512, length: 512, value: 2 },
        { offset: 0, length: MIB, value: 3 },
      ];
      qemuIo('vdi', path, asCommands(first));
      await expectSound(path, folder, size, first);
      const second = [{ offset: 4 * MIB - 7, length: 14, value: 4 }];
      await ours(path, true, (disk) => writeAll(disk, second));
      await expectSound(path, folder, size, [...first, ...second]);
      expect(await ourMap(path)).toEqual(theirMap(path));
    });
  });

  test('grown past the room of the map: judged by qemu after each step', async () => {
    await inFolder(async (folder) => {
      const path = join(folder, 'a.vdi');
      await createImage(graph, { filename: path, format: 'vdi', size: 128 * MIB, options: { 'data-align': 512 } });
      const writes = [5, 0, 127, 3].map((block, i) => ({ offset: block * MIB + i, length: 9000, value: i + 1 }));
      await ours(path, true, (disk) => writeAll(disk, writes));
      for (const size of [129 * MIB, 400 * MIB, 400 * MIB + 512, 300_000 * MIB]) {
        const last = { offset: size - 4096, length: 4096, value: 200 };
        await ours(path, true, async (disk) => {
          await disk.resize(size);
          await disk.write(last.offset, new Uint8Array(last.length).fill(last.value));
        });
        writes.push(last);
        if (size < 1000 * MIB) await expectSound(path, folder, size, writes);
        else expect(qemuImgOk('check', '-f', 'vdi', path)).toBe('No errors were found on the image.\n');
      }
      const kept = qemuIo('vdi', path, ['read -P 1 5242880 9000', 'read -P 200 314572795904 4096']);
      expect(kept).not.toContain('mismatch');
    });
  });
});

describe.skipIf(peersMissing !== undefined)(`made by qemu${skipNote}`, () => {
  /** 128 blocks: the map fills its sector, and the data begin at once behind it. */
  const SIZE = 128 * MIB;

  test.each(['off', 'on'])('static=%s, the map without room: written, resized, compacted by us', async (fixed) => {
    await inFolder(async (folder) => {
      const path = join(folder, 'a.vdi');
      qemuImgOk('create', '-q', '-f', 'vdi', '-o', `static=${fixed}`, path, `${SIZE}`);
      const writes = [7, 127, 2, 64].map((block, i) => ({ offset: block * MIB + 100, length: 70_000, value: i + 1 }));
      qemuIo('vdi', path, asCommands(writes));
      await expectSound(path, folder, SIZE, writes);
      expect(await ourMap(path)).toEqual(theirMap(path));
      const step = async (size: number, more: readonly Write[], work: (disk: Disk) => Promise<void>) => {
        await ours(path, true, work);
        writes.push(...more);
        await expectSound(path, folder, size, writes);
      };
      const own = [{ offset: 30 * MIB + 5, length: 1000, value: 40 }];
      await step(SIZE, own, (disk) => writeAll(disk, own));
      const behind = [{ offset: 140 * MIB, length: 512, value: 41 }];
      await step(200 * MIB, behind, async (disk) => {
        await disk.resize(200 * MIB);
        await writeAll(disk, behind);
      });
      qemuIo('vdi', path, ['write -P 42 150M 64k']);
      writes.push({ offset: 150 * MIB, length: 65536, value: 42 });
      if (fixed === 'off') {
        const cleared = [{ offset: 7 * MIB, length: MIB, value: 0 }];
        await step(200 * MIB, cleared, async (disk) => {
          await disk.discard(7 * MIB, MIB);
          await disk.compact();
        });
      }
      await step(64 * MIB, [], (disk) => disk.resize(64 * MIB, { shrink: true }));
      const again = [{ offset: 64 * MIB, length: 136 * MIB, value: 0 }];
      await step(200 * MIB, again, (disk) => disk.resize(200 * MIB));
      expect(await ourMap(path)).toEqual(theirMap(path));
    });
  });

  test('keeps its header’s size and its UUID, and changes the other one (V-64)', async () => {
    await inFolder(async (folder) => {
      const path = join(folder, 'a.vdi');
      qemuImgOk('create', '-q', '-f', 'vdi', path, '3M');
      const head = () => {
        const bytes = new Uint8Array(512);
        const file = openSync(path, 'r');
        readSync(file, bytes, 0, 512, 0);
        closeSync(file);
        return bytes;
      };
      const before = head();
      await ours(path, true, (disk) => disk.write(MIB, new Uint8Array(10).fill(1)));
      const after = head();
      const changed = [...after.keys()].filter((at) => after[at] !== before[at]);
      const { allocated, modificationUuid } = VDI_FIELDS;
      expect(changed.every((at) => at === allocated || (at >= modificationUuid && at < modificationUuid + 16))).toBe(
        true,
      );
      expect(changed.length).toBeGreaterThan(8);
    });
  });
});

function damaged(fields: Partial<Record<VdiField, number>>, map: readonly number[] = [0, FREE, 1]): Uint8Array {
  const bytes = makeVdi({ diskSize: map.length * MIB, map, headerSize: 0x180, slots: 3 });
  const view = new DataView(bytes.buffer);
  for (const [field, value] of Object.entries(fields)) view.setUint32(VDI_FIELDS[field as VdiField], value, true);
  return bytes;
}

describe.skipIf(peersMissing !== undefined)(`in the same words as qemu-img${skipNote}`, () => {
  test.each<Partial<Record<VdiField, number>>>([
    { diskSizeHigh: 0x20000 },
    { diskSizeHigh: 0xffffffff },
    { signature: 0x1234 },
    { version: 0x00020001 },
    { sectorSize: 4096 },
    { sectorSize: 0 },
    { blockSize: 0 },
    { blockSize: 1000000 },
    { blocks: 2 },
    { blocks: 0 },
    { diskSizeLow: 3 * MIB + 1 },
    { linkUuid: 1 },
    { parentUuid: 1 },
    { linkUuid: 1, parentUuid: 1, blocks: 1 },
    { blocks: 0x20000000 },
    { blocks: 0xffffffff, sectorSize: 1 },
    { signature: 0, version: 0, blockSize: 3 },
  ])('refused: %j', async (fields) => {
    await inFolder(async (folder) => {
      const path = join(folder, 'a.vdi');
      writeFileSync(path, damaged(fields));
      const { stderr, status } = qemuImg('info', '-f', 'vdi', path);
      expect(status).toBe(1);
      const theirs = stderr.trim().replace(`qemu-img: Could not open '${path}': `, '');
      await expect(graph.open(path, { format: 'vdi' })).rejects.toMatchObject({ message: theirs });
    });
  });

  test.each<[Partial<Record<VdiField, number>>, number[]]>([
    [{}, [0, FREE, 1]],
    [{}, [2, ZERO, 1, 0]],
    [{}, [0, 3, 1]],
    [{}, [0, 0xfffffffd, 0x7fffffff]],
    [{}, [1, 1, 1]],
    [{ allocated: 1 }, [0, FREE, 1]],
    [{ allocated: 9 }, [0, FREE, 1]],
    [{ allocated: 0 }, [0, 0, 5]],
  ])('found by a check: %j %j', async (fields, map) => {
    await inFolder(async (folder) => {
      const path = join(folder, 'a.vdi');
      writeFileSync(path, damaged(fields, map));
      const { stderr } = qemuImg('check', '-f', 'vdi', path);
      const findings: string[] = [];
      await ours(path, false, (disk) => disk.check({ repair: 'none', finding: (line) => void findings.push(line) }));
      // What only we look for comes besides (V-46).
      const common = findings.filter((line) => line.startsWith('ERROR') && !line.includes('end of the file'));
      expect(common).toEqual(stderr.split('\n').filter((line) => line.startsWith('ERROR')));
    });
  });
});
