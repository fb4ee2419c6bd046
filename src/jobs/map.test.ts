import { describe, expect, test } from 'vitest';
import { bytesWith, makeImage, type World, withDisk, world } from '../../tests/support/job-disks.ts';
import { BlockError } from '../core/errors.ts';
import type { BlockStatus } from '../core/status.ts';
import { type MapEntry, type MapOptions, map } from './map.ts';

const MIB = 1 << 20;
const PATH = '/disk';

async function mapOf({ graph }: World, format: string, options: MapOptions = {}): Promise<MapEntry[]> {
  return withDisk(graph, PATH, { format }, async (disk) => {
    const entries: MapEntry[] = [];
    for await (const batch of map(disk, options)) entries.push(...batch);
    return entries;
  });
}

describe('a raw disk (T-MAP-1, T-MAP-2)', () => {
  test('has holes that are present and zero, with their offset', async () => {
    const made = world();
    await makeImage(made.graph, PATH, 'raw', bytesWith(4 * MIB, [[MIB, 65536]]));
    const shared = { depth: 0, present: true, filename: PATH };
    expect(await mapOf(made, 'raw')).toEqual([
      { ...shared, start: 0, length: MIB, zero: true, data: false, offset: 0 },
      { ...shared, start: MIB, length: 65536, zero: false, data: true, offset: MIB },
      { ...shared, start: MIB + 65536, length: 3 * MIB - 65536, zero: true, data: false, offset: MIB + 65536 },
    ]);
  });

  test('is walked from `start`, no further than `length` and the end', async () => {
    const made = world();
    made.host.put(PATH, bytesWith(2 * MIB, [[0, 2 * MIB]]));
    const whole = { depth: 0, present: true, zero: false, data: true, filename: PATH };
    expect(await mapOf(made, 'raw', { start: 512, length: 1024 })).toEqual([
      { ...whole, start: 512, length: 1024, offset: 512 },
    ]);
    expect(await mapOf(made, 'raw', { start: 2 * MIB - 512, length: MIB })).toEqual([
      { ...whole, start: 2 * MIB - 512, length: 512, offset: 2 * MIB - 512 },
    ]);
  });

  test('of which nothing is asked gives one empty entry', async () => {
    const made = world();
    made.host.put(PATH, 4096);
    const nothing = { length: 0, depth: 0, present: false, zero: false, data: false };
    expect(await mapOf(made, 'raw', { length: 0 })).toEqual([{ start: 0, ...nothing }]);
    expect(await mapOf(made, 'raw', { start: 8192 })).toEqual([{ start: 8192, ...nothing }]);
  });
});

test('neighbours in a VDI merge where their places continue, and only there', async () => {
  const made = world();
  await makeImage(made.graph, PATH, 'vdi', new Uint8Array(8 * MIB));
  await withDisk(made.graph, PATH, { format: 'vdi', writable: true }, async (disk) => {
    // Block 2 comes to lie before 0 and 1 in the file.
    for (const block of [2, 0, 1, 5]) await disk.write(block * MIB, bytesWith(MIB, [[0, MIB]]));
  });
  const entries = await mapOf(made, 'vdi');
  expect(entries.filter(({ data }) => data).map(({ start, length }) => [start, length])).toEqual([
    [0, 2 * MIB],
    [2 * MIB, MIB],
    [5 * MIB, MIB],
  ]);
  expect(entries.reduce((sum, { length }) => sum + length, 0)).toBe(8 * MIB);
  expect(entries.filter(({ data }) => !data).every(({ zero }) => zero)).toBe(true);
});

/** A disk's answers to questions about its status, one for each MiB. */
async function entriesOf(answers: readonly Omit<BlockStatus, 'length'>[]): Promise<MapEntry[]> {
  const made = world();
  made.host.put(PATH, answers.length * MIB);
  return withDisk(made.graph, PATH, { format: 'raw' }, async (disk) => {
    disk.tryStatusNow = (offset) => {
      const answer = answers[offset / MIB];
      return answer && { ...answer, length: MIB };
    };
    const entries: MapEntry[] = [];
    for await (const batch of map(disk)) entries.push(...batch);
    return entries;
  });
}

describe('neighbours', () => {
  const base = { allocated: true, data: true, zero: false, depth: 0, at: { filename: 'a', offset: 0 } };
  const next = { ...base, at: { filename: 'a', offset: MIB } };

  test('that continue each other are one entry', async () => {
    expect(await entriesOf([base, next])).toHaveLength(1);
    const { at: _at, ...nowhere } = base;
    expect(await entriesOf([nowhere, nowhere])).toHaveLength(1);
  });

  test.each([
    ['allocated', { ...next, allocated: false }],
    ['data', { ...next, data: false }],
    ['zero', { ...next, zero: true }],
    ['depth', { ...next, depth: 1 }],
    ['offset', { ...next, at: { filename: 'a', offset: MIB + 512 } }],
    ['filename', { ...next, at: { filename: 'b', offset: MIB } }],
    ['having an offset', { allocated: true, data: true, zero: false, depth: 0 }],
  ])('that differ in %s are two', async (_what, other) => {
    expect(await entriesOf([base, other])).toHaveLength(2);
  });
});

test('a failure is told in the words of T-MAP-4', async () => {
  const made = world();
  made.host.put(PATH, MIB);
  await withDisk(made.graph, PATH, { format: 'raw' }, async (disk) => {
    disk.tryStatusNow = () => undefined;
    disk.status = () => Promise.reject(new BlockError('EIO', 'no'));
    await expect(map(disk).next()).rejects.toMatchObject({
      code: 'EIO',
      message: 'Could not read file metadata: Input/output error',
    });
  });
});

test('runs before a failure are told (T-MAP-4)', async () => {
  const made = world();
  made.host.put(PATH, MIB);
  await withDisk(made.graph, PATH, { format: 'raw' }, async (disk) => {
    const run = { allocated: true, depth: 0, length: 4096 };
    disk.tryStatusNow = (offset) =>
      offset === 0
        ? { ...run, data: true, zero: false }
        : offset === 4096
          ? { ...run, data: false, zero: true }
          : undefined;
    disk.status = () => Promise.reject(new BlockError('EIO', 'no'));
    const walk = map(disk);
    // The second may go on, which is not known.
    expect((await walk.next()).value).toMatchObject([{ start: 0, length: 4096, data: true }]);
    await expect(walk.next()).rejects.toMatchObject({ code: 'EIO' });
  });
});

test('an abort stops a long walk', async () => {
  const made = world();
  await makeImage(made.graph, PATH, 'vdi', new Uint8Array(0));
  const controller = new AbortController();
  await withDisk(made.graph, PATH, { format: 'vdi' }, async (disk) => {
    Object.defineProperty(disk, 'length', { value: 2 ** 40 });
    disk.tryStatusNow = (offset) => ({
      length: MIB,
      allocated: true,
      data: (offset / MIB) % 2 === 0,
      zero: false,
      depth: 0,
    });
    const walk = async () => {
      for await (const _batch of map(disk, { signal: controller.signal })) controller.abort('enough');
    };
    await expect(walk()).rejects.toBe('enough');
  });
});
