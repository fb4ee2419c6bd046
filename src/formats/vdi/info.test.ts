/** What is told of an image (V-31). */
import { describe, expect, test } from 'vitest';
import { FREE } from '../../../tests/support/vdi-bytes.ts';
import { BLOCK, block, hostWith, withDisk } from '../../../tests/support/vdi-on-sim.ts';

const UUID = '04030201-0605-0807-090a-0b0c0d0e0f10';

describe('info', () => {
  test('tells type, flags, UUIDs, places and what leaked', async () => {
    const host = hostWith({ map: [2, FREE, 0], slots: 3 }, { allocated: 3, flags: 1 });
    await withDisk(
      host,
      async (disk) => {
        expect(disk.info()).toEqual({
          clusterSize: BLOCK,
          dirty: false,
          specific: {
            type: 'vdi',
            data: {
              version: '1.1',
              'image-type': 'dynamic',
              flags: 1,
              uuid: UUID,
              'modification-uuid': '83828180-8584-8786-8889-8a8b8c8d8e8f',
              blocks: 3,
              'allocated-blocks': 3,
              'leaked-blocks': 1,
              'block-map-offset': 0x200,
              'data-offset': 0x400,
            },
          },
        });
      },
      { writable: false },
    );
  });

  test('without the map tells all but what leaked', async () => {
    const host = hostWith({ map: [0, FREE] });
    await withDisk(
      host,
      async (disk) => {
        expect(disk.info().specific?.data).toMatchObject({ uuid: UUID, 'allocated-blocks': 1 });
        expect(disk.info().specific?.data).not.toHaveProperty('leaked-blocks');
        await expect(disk.read(0, 1)).rejects.toMatchObject({ code: 'EIO' });
      },
      { writable: false, noIO: true },
    );
  });

  test('tells geometry and description where there are any', async () => {
    const host = hostWith({ map: [FREE], type: 2 }, { cylinders: 20, heads: 16, sectors: 63, logicalHeads: 255 });
    await withDisk(
      host,
      async (disk) => {
        expect(disk.info().specific?.data).toMatchObject({
          'image-type': 'static',
          geometry: { cylinders: 20, heads: 16, sectors: 63, 'sector-size': 512 },
          'logical-geometry': { cylinders: 0, heads: 255, sectors: 0, 'sector-size': 512 },
        });
      },
      { writable: false },
    );
  });

  test('keeps up with a session of writing', async () => {
    const host = hostWith({ map: [0, FREE, FREE] });
    await withDisk(host, async (disk) => {
      await disk.write(BLOCK, block(1));
      await disk.flush();
      expect(disk.info().specific?.data).toMatchObject({ 'allocated-blocks': 2, 'leaked-blocks': 0 });
      await disk.discard(0, BLOCK);
      await disk.flush();
      expect(disk.info().specific?.data).toMatchObject({ 'allocated-blocks': 2, 'leaked-blocks': 1 });
      await disk.resize(2 * BLOCK, { shrink: true });
      expect(disk.info().specific?.data).toMatchObject({ blocks: 2 });
    });
  });
});
