/** New images (V-40 to V-43). */
import { describe, expect, test } from 'vitest';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { FREE, VDI_FIELDS } from '../../../tests/support/vdi-bytes.ts';
import { checked, expectSame, field, stored, withDisk } from '../../../tests/support/vdi-on-sim.ts';
import { parseUuid } from '../../bytes/uuid.ts';
import { createImage } from '../../core/create.ts';
import type { OptionTree } from '../../core/options.ts';
import { SimHost, type SimHostOptions } from '../../testing/index.ts';

const MIB = 1 << 20;

async function make(size: number, options: OptionTree = {}, traits: SimHostOptions = {}): Promise<SimHost> {
  const host = new SimHost(traits);
  await createImage(graphOn(host), { filename: PATH, format: 'vdi', size, options });
  return host;
}

function bytesAt(host: SimHost, name: 'uuid' | 'modificationUuid' | 'linkUuid' | 'parentUuid'): number[] {
  return [...host.contents(PATH).subarray(VDI_FIELDS[name], VDI_FIELDS[name] + 16)];
}

describe('a new image (V-42)', () => {
  test('is version 1.1 with a header of 400 bytes, the map at 512, the data at 1 MiB', async () => {
    const host = await make(10 * MIB);
    const fields = [
      'version',
      'headerSize',
      'type',
      'flags',
      'mapOffset',
      'dataOffset',
      'sectorSize',
      'unused',
    ] as const;
    expect(fields.map((name) => field(host, name))).toEqual([0x10001, 0x190, 1, 0, 0x200, MIB, 512, 0]);
    expect(
      ['logicalCylinders', 'logicalHeads', 'logicalSectors', 'logicalSectorSize'].map((name) =>
        field(host, name as 'unused'),
      ),
    ).toEqual([0, 0, 0, 512]);
    expect(
      ['diskSizeLow', 'blockSize', 'blockExtra', 'blocks', 'allocated'].map((name) => field(host, name as 'unused')),
    ).toEqual([10 * MIB, MIB, 0, 10, 0]);
    expect(stored(host).map).toEqual(Array.from({ length: 10 }, () => FREE));
    expect(host.contents(PATH).length).toBe(MIB);
    expect(new TextDecoder().decode(host.contents(PATH).subarray(0, 64))).toMatch(/^<<< .*diskwright.* >>>\n\0*$/);
  });

  test('has UUIDs of its own, and no parent', async () => {
    const one = await make(MIB, {}, { seed: 1 });
    const other = await make(MIB, {}, { seed: 2 });
    for (const name of ['uuid', 'modificationUuid'] as const) {
      expect(bytesAt(one, name)).not.toEqual(bytesAt(other, name));
      // Version 4, in the mixed order of V-2.
      expect((bytesAt(one, name)[7] ?? 0) >> 4).toBe(4);
    }
    expect(bytesAt(one, 'uuid')).not.toEqual(bytesAt(one, 'modificationUuid'));
    expect([...bytesAt(one, 'linkUuid'), ...bytesAt(one, 'parentUuid')].every((byte) => byte === 0)).toBe(true);
  });

  test('V-43: of no size has no blocks', async () => {
    const host = await make(0);
    expect(stored(host)).toMatchObject({ diskSize: 0, map: [], allocated: 0 });
    await withDisk(host, async (disk) => expect(disk.length).toBe(0), { writable: false });
  });

  test('V-40: has its size rounded up to 512', async () => {
    expect(stored(await make(MIB + 1)).diskSize).toBe(MIB + 512);
    expect(stored(await make(MIB + 1)).map).toHaveLength(2);
  });

  test.each([{ static: true }, { preallocation: 'metadata' }, { preallocation: 'falloc' }, { preallocation: 'full' }])(
    'V-40: %j is static: every block has its place, and the file its length',
    async (options) => {
      const host = await make(3 * MIB + 512, options);
      expect(field(host, 'type')).toBe(2);
      expect(stored(host)).toMatchObject({ map: [0, 1, 2, 3], allocated: 4, problems: [] });
      expect(host.contents(PATH).length).toBe(MIB + 4 * MIB);
      const { allocated = 0 } = await host.files.stat(PATH);
      const full = !('static' in options) && options.preallocation !== 'metadata';
      expect(allocated >= 4 * MIB).toBe(full);
      expectSame(stored(host).content(), new Uint8Array(3 * MIB + 512));
    },
  );

  test('is not static with static=off and preallocation=off', async () => {
    expect(field(await make(MIB, { static: 'off', preallocation: 'off' }), 'type')).toBe(1);
  });
});

describe('options (V-41)', () => {
  test.each([4096, 65536, 32 * MIB, 256 * MIB])('block-size=%i', async (blockSize) => {
    const host = await make(3 * blockSize - 512, { 'block-size': blockSize });
    expect(field(host, 'blockSize')).toBe(blockSize);
    expect(field(host, 'blocks')).toBe(3);
    await withDisk(host, async (disk) => {
      await disk.write(disk.length - 512, new Uint8Array(512).fill(9));
      expect(await disk.read(disk.length - 512, 512)).toEqual(new Uint8Array(512).fill(9));
      expect((await checked(disk)).report.corruptions).toBe(0);
    });
  });

  test('uuid and description', async () => {
    const uuid = '12345678-9abc-4def-8123-456789abcdef';
    const host = await make(MIB, { uuid, description: 'Größe' });
    expect(bytesAt(host, 'uuid')).toEqual([...(parseUuid(uuid) ?? [])]);
    expect(bytesAt(host, 'uuid').slice(0, 4)).toEqual([0x78, 0x56, 0x34, 0x12]);
    await withDisk(
      host,
      async (disk) => expect(disk.info().specific?.data).toMatchObject({ uuid, description: 'Größe' }),
      { writable: false },
    );
  });

  test('data-align', async () => {
    expect(field(await make(200 * 4096, { 'block-size': 4096, 'data-align': 512 }), 'dataOffset')).toBe(0x200 + 0x400);
    expect(field(await make(MIB, { 'data-align': 8 * MIB }), 'dataOffset')).toBe(8 * MIB);
  });

  test.each<[OptionTree, RegExp]>([
    [{ 'block-size': 2048 }, /Block size 2048 is not a power of two from 4096/],
    [{ 'block-size': 512 * MIB }, /Block size 536870912 is not/],
    [{ 'block-size': 3 * MIB }, /is not a power of two/],
    [{ 'data-align': 256 }, /Data alignment 256 is not/],
    [{ uuid: 'no' }, /Invalid UUID 'no'/],
    [{ description: 'ä'.repeat(128) }, /Description is longer than 255 bytes/],
  ])('%j is refused, and no file is left', async (options, message) => {
    const host = new SimHost();
    const making = createImage(graphOn(host), { filename: PATH, format: 'vdi', size: MIB, options });
    await expect(making).rejects.toMatchObject({ code: 'EINVAL', message: expect.stringMatching(message) });
    expect(host.exists(PATH)).toBe(false);
  });

  test.each<[number, OptionTree]>([
    [MIB, { 'block-size': 2048 }],
    [MIB, { uuid: 'no' }],
    [MIB, { parent: '/no-such.vdi' }],
    [2 ** 41, { 'block-size': 4096 }],
  ])('a size of %i with %j: an image that is there stays as it is', async (size, options) => {
    const host = new SimHost();
    host.put(PATH, new Uint8Array(1024).fill(5));
    const making = createImage(graphOn(host), { filename: PATH, format: 'vdi', size, options });
    await expect(making).rejects.toThrow();
    expect(host.contents(PATH)).toEqual(new Uint8Array(1024).fill(5));
  });

  test.each<[number, OptionTree, string]>([
    [0x1fffff8000001, {}, 'size is 0x1fffff8000200, max supported is 0x1fffff8000000'],
    [2 ** 41, { 'block-size': 4096 }, 'size is 0x20000000000, max supported is 0x1fffff80000'],
    [0x1fffff8000200, { 'block-size': 256 * MIB }, 'max supported is 0x1fffff8000000'],
    [Number.MAX_SAFE_INTEGER, {}, 'size is 0x20000000000000'],
  ])('a size of %i with %j is too large', async (size, options, text) => {
    const making = createImage(graphOn(new SimHost()), { filename: PATH, format: 'vdi', size, options });
    await expect(making).rejects.toMatchObject({ code: 'ENOTSUP', message: expect.stringContaining(text) });
  });
});

test('a full disk is told, and what was made of the image is none', async () => {
  const host = new SimHost({ capacity: 2 * MIB });
  const options = { preallocation: 'full' };
  const making = createImage(graphOn(host), { filename: PATH, format: 'vdi', size: 8 * MIB, options });
  await expect(making).rejects.toMatchObject({ code: 'ENOSPC' });
  if (host.exists(PATH)) expect(() => stored(host)).toThrow('this is no VDI');
});
