import { describe, expect, test } from 'vitest';
import { bytesWith, contentOf, type World, withDisk, world } from '../../tests/support/job-disks.ts';
import { type DdOptions, type DdResult, dd } from './dd.ts';

const KIB = 1024;
const BYTES = bytesWith(10 * KIB, [[0, 10 * KIB]]);

async function copied(made: World, options: Partial<DdOptions>, format = 'raw'): Promise<DdResult> {
  return withDisk(made.graph, '/in', { format: 'raw' }, (input) =>
    dd({ graph: made.graph, input, output: { filename: '/out', format }, ...options }),
  );
}

function source(bytes = BYTES): World {
  const made = world();
  made.host.put('/in', bytes);
  return made;
}

describe('what is copied (T-DD-1)', () => {
  test.each([
    [{}, 0, 10 * KIB],
    [{ blockSize: 4 * KIB }, 0, 10 * KIB],
    [{ blockSize: 4 * KIB, count: 1 }, 0, 4 * KIB],
    [{ blockSize: 4 * KIB, count: 100 }, 0, 10 * KIB],
    [{ blockSize: 4 * KIB, skip: 1 }, 4 * KIB, 10 * KIB],
    // The count is from the start of the input, unlike dd(1)'s.
    [{ blockSize: 4 * KIB, count: 2, skip: 1 }, 4 * KIB, 8 * KIB],
    [{ blockSize: 4 * KIB, count: 1, skip: 1 }, 4 * KIB, 4 * KIB],
    [{ blockSize: 512, count: 3 }, 0, 1536],
  ])('with %j', async (options, start, end) => {
    const made = source();
    expect(await copied(made, options)).toEqual({ skippedPastEnd: false });
    expect(made.host.contents('/out')).toEqual(BYTES.subarray(start, end));
  });

  test('skipping past the end gives an empty output, and says so', async () => {
    const made = source();
    expect(await copied(made, { blockSize: 4 * KIB, skip: 3 })).toEqual({ skippedPastEnd: true });
    expect(made.host.contents('/out').length).toBe(0);
  });

  test('into another format', async () => {
    const made = source();
    await copied(made, {}, 'vdi');
    expect(await contentOf(made.graph, '/out', 'vdi')).toEqual(BYTES);
  });

  test('replaces what was there', async () => {
    const made = source();
    made.host.put('/out', 100_000);
    await copied(made, {});
    expect(made.host.contents('/out')).toEqual(BYTES);
  });
});

describe('a failure', () => {
  test.each([
    ['read', '/in', 'error while reading from input image file: Input/output error'],
    ['write', undefined, 'Input/output error'],
  ] as const)('of a %s is told, and leaves nothing', async (operation, path, message) => {
    const made = source();
    made.host.faults.inject({ operation, code: 'EIO', ...(path && { path }) });
    await expect(copied(made, {})).rejects.toThrow(message);
    expect(await made.host.files.list('/')).toEqual(['in']);
    expect(made.host.openFiles).toEqual([]);
  });

  test('an abort leaves nothing', async () => {
    const made = source(bytesWith(8 << 20, [[0, 8 << 20]]));
    const controller = new AbortController();
    const progress = (done: number) => done > 0 && controller.abort('enough');
    await expect(copied(made, { signal: controller.signal, progress })).rejects.toBe('enough');
    expect(await made.host.files.list('/')).toEqual(['in']);
  });
});
