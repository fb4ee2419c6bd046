import { describe, expect, test } from 'vitest';
import { Graph } from '../core/graph.ts';
import type { NestedOptions } from '../core/options.ts';
import { raw } from '../formats/raw.ts';
import { memory } from '../protocols/memory.ts';
import { SimHost } from '../testing/index.ts';
import { compress } from './compress.ts';
import { copyOnRead } from './copy-on-read.ts';

const drivers = [memory, raw, copyOnRead, compress];
const below = { driver: 'memory', size: 4096 };

describe('compress', () => {
  test.each<[NestedOptions, string]>([
    [{ driver: 'raw', file: below }, 'raw'],
    [below, 'memory'],
    [{ driver: 'copy-on-read', file: { driver: 'raw', file: below } }, 'raw'],
  ])('over what does not compress it is refused: %j', async (file, format) => {
    const graph = new Graph({ host: new SimHost(), drivers });
    await expect(graph.open({ driver: 'compress', file }, { writable: true })).rejects.toMatchObject({
      code: 'ENOTSUP',
      message: `Compression is not supported for underlying format: ${format}`,
    });
    expect(graph.nodes()).toEqual([]);
  });

  test('over nothing', async () => {
    const graph = new Graph({ host: new SimHost(), drivers });
    await expect(graph.open({ driver: 'compress' })).rejects.toThrow('A block device must be specified for "file"');
  });
});
