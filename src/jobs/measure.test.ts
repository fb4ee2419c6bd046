import { describe, expect, test } from 'vitest';
import { bytesWith, makeImage, withDisk, world } from '../../tests/support/job-disks.ts';
import { measure } from './measure.ts';

const MIB = 1 << 20;

describe('what an image of raw format needs (T-MEAS-1)', () => {
  test.each([
    [0, 0],
    [512, 512],
    [1000, 1024],
    [3 * MIB, 3 * MIB],
  ])('for %i bytes', async (content, size) => {
    const { graph } = world();
    expect(await measure(graph, { format: 'raw', content })).toMatchObject({ required: size, fullyAllocated: size });
  });

  test('for a disk is its size', async () => {
    const { graph } = world();
    await makeImage(graph, '/disk', 'vdi', bytesWith(4 * MIB, [[0, 512]]));
    const measured = await withDisk(graph, '/disk', { format: 'vdi' }, (content) =>
      measure(graph, { format: 'raw', content }),
    );
    expect(measured).toMatchObject({ required: 4 * MIB, fullyAllocated: 4 * MIB });
  });
});

describe('a VDI', () => {
  test('takes as much as it then does', async () => {
    const { graph, host } = world();
    const bytes = bytesWith(6 * MIB, [
      [MIB, 512],
      [3 * MIB, MIB],
    ]);
    host.put('/disk', bytes);
    await makeImage(graph, '/image', 'vdi', bytes);
    const content = await graph.open('/disk', { format: 'raw' });
    const { required, fullyAllocated } = await measure(graph, { format: 'vdi', content });
    await content.close();
    expect(host.contents('/image').length).toBeLessThanOrEqual(fullyAllocated);
    expect(required).toBeLessThanOrEqual(fullyAllocated);
    await makeImage(graph, '/full', 'vdi', bytesWith(6 * MIB, [[0, 6 * MIB]]));
    expect(fullyAllocated).toBe(host.contents('/full').length);
  });
});

test.each([
  ['nonsense', {}, "Unknown file format 'nonsense'"],
  ['file', {}, "Block driver 'file' does not support size measurement"],
  ['raw', { nonsense: 'on' }, "Invalid parameter 'nonsense'"],
])('format %s with options %j is refused', async (format, options, message) => {
  await expect(measure(world().graph, { format, options, content: MIB })).rejects.toThrow(message);
});
