import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  bytesWith,
  contentOf,
  makeImage,
  randomBytes,
  same,
  type World,
  withDisk,
  world,
} from '../../tests/support/job-disks.ts';
import type { Disk } from '../core/disk.ts';
import { BlockError } from '../core/errors.ts';
import { type ConvertOptions, convert } from './convert.ts';

const MIB = 1 << 20;
const SOURCE = '/source';
const TARGET = '/target';

type Options = Partial<Omit<ConvertOptions, 'graph' | 'sources'>>;

/** Converts `/source` (raw unless told otherwise) into a new image `/target`. */
async function convertTo(made: World, format: string, options: Options = {}, sourceFormat = 'raw'): Promise<void> {
  const target = { filename: TARGET, format };
  await withDisk(made.graph, SOURCE, { format: sourceFormat }, (disk) =>
    convert({ graph: made.graph, sources: [disk], target, ...options }),
  );
}

/** Writes to files whose name holds `name`, in the order they were done. */
function writesTo({ host }: World, name: string): { readonly offset: number; readonly length: number }[] {
  return host.log.flatMap((entry) =>
    entry.type === 'change' && entry.path.includes(name) && entry.change.kind === 'write'
      ? [{ offset: entry.change.offset, length: entry.change.data.length }]
      : [],
  );
}

function names({ host }: World): Promise<string[]> {
  return host.files.list('/');
}

describe('content', () => {
  test('arrives whole, from any format into any, with any settings', async () => {
    const settings = fc.record({
      seed: fc.integer({ min: 0, max: 1_000_000 }),
      from: fc.constantFrom('raw', 'vdi'),
      to: fc.constantFrom('raw', 'vdi'),
      sectors: fc.integer({ min: 0, max: 11_000 }),
      sparseSize: fc.constantFrom(0, 512, 4096, 65536, 6144),
      parallel: fc.integer({ min: 1, max: 16 }),
      outOfOrder: fc.boolean(),
      copyOffload: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(settings, async ({ seed, from, to, sectors, ...options }) => {
        const bytes = randomBytes(sectors * 512, seed);
        const made = world({ seed, latency: { min: 0, max: 5 }, refuseNow: 0.3, record: false });
        if (from === 'raw') made.host.put(SOURCE, bytes);
        else await makeImage(made.graph, SOURCE, from, bytes);
        await convertTo(made, to, options, from);
        expect(same(await contentOf(made.graph, TARGET, to), bytes)).toBe(true);
        expect(await names(made)).toEqual(['source', 'target']);
        expect(made.host.openFiles).toEqual([]);
      }),
      { numRuns: 30 },
    );
  }, 60_000);

  test('of several sources is joined, each rounded up to 512 bytes (T-CONV-1)', async () => {
    const made = world();
    const first = bytesWith(1000, [[0, 1000]], 1);
    const second = bytesWith(3 * MIB, [[MIB, 700]], 2);
    made.host.put('/a', first);
    made.host.put('/b', second);
    const sources = [await made.graph.open('/a', { format: 'raw' }), await made.graph.open('/b', { format: 'raw' })];
    await convert({ graph: made.graph, sources, target: { filename: TARGET, format: 'vdi' } });
    for (const disk of sources) await disk.close();
    const whole = new Uint8Array(1024 + 3 * MIB);
    whole.set(first);
    whole.set(second, 1024);
    expect(same(await contentOf(made.graph, TARGET, 'vdi'), whole)).toBe(true);
  });
});

describe('zeroes (T-CONV-4)', () => {
  test('are not stored in a new image; -S 0 stores all', async () => {
    const bytes = bytesWith(8 * MIB, [[5 * MIB, 4096]]);
    const sparse = world();
    sparse.host.put(SOURCE, bytes);
    await convertTo(sparse, 'raw');
    expect(writesTo(sparse, 'target').filter(({ length }) => length > 0)).toContainEqual({
      offset: 5 * MIB,
      length: 4096,
    });
    expect((await sparse.host.files.stat(TARGET)).allocated).toBeLessThan(MIB);

    const full = world();
    full.host.put(SOURCE, bytes);
    await convertTo(full, 'raw', { sparseSize: 0 });
    expect((await full.host.files.stat(TARGET)).allocated).toBe(8 * MIB);
  });

  test('are written over an existing image, unless it is said to be zero', async () => {
    const bytes = bytesWith(4 * MIB, [[0, 4096]]);
    for (const isZero of [false, true]) {
      const made = world();
      made.host.put(SOURCE, bytes);
      made.host.put(TARGET, bytesWith(5 * MIB, [[2 * MIB, 3 * MIB]]));
      await withDisk(made.graph, TARGET, { format: 'raw', writable: true }, (existing) =>
        convertTo(made, 'raw', { target: { existing, isZero } }),
      );
      const content = await contentOf(made.graph, TARGET, 'raw');
      expect(content[0]).toBe(bytes[0]);
      expect(content[3 * MIB] === 0).toBe(!isZero);
      // What the source does not reach is left alone.
      expect(content[4 * MIB]).not.toBe(0);
    }
  });
});

describe('the target', () => {
  test('that exists must be long enough', async () => {
    const made = world();
    made.host.put(SOURCE, 4 * MIB);
    made.host.put(TARGET, 4 * MIB - 512);
    await withDisk(made.graph, TARGET, { format: 'raw', writable: true }, async (existing) => {
      await expect(convertTo(made, 'raw', { target: { existing } })).rejects.toThrow(
        'output file is smaller than input file',
      );
    });
  });

  test('gets its name when it is complete: what had it before stays until then', async () => {
    const made = world({ latency: { min: 1, max: 5 } });
    const before = bytesWith(5000, [[0, 5000]], 9);
    made.host.put(SOURCE, bytesWith(8 * MIB, [[0, 8 * MIB]]));
    made.host.put(TARGET, before);
    let looks = 0;
    await convertTo(made, 'raw', {
      progress(done) {
        if (done === 8 * MIB) return;
        looks++;
        expect(made.host.contents(TARGET)).toEqual(before);
      },
    });
    expect(looks).toBeGreaterThan(2);
    expect(made.host.contents(TARGET).length).toBe(8 * MIB);
  });

  test('behind a symbolic link is replaced there', async () => {
    const made = world();
    made.host.put(SOURCE, bytesWith(MIB, [[0, MIB]]));
    made.host.put('/folder/real', 10);
    made.host.link(TARGET, '/folder/real');
    await convertTo(made, 'raw');
    expect(made.host.contents('/folder/real').length).toBe(MIB);
    expect(await made.host.files.list('/folder')).toEqual(['real']);
  });

  test('that is a device is written in place', async () => {
    const made = world();
    made.host.put(SOURCE, bytesWith(MIB, [[0, MIB]]));
    made.host.put('/dev/disk', 2 * MIB, { kind: 'block' });
    await convertTo(made, 'raw', { target: { filename: '/dev/disk', format: 'raw' } });
    expect(same(made.host.contents('/dev/disk').slice(0, MIB), made.host.contents(SOURCE))).toBe(true);
    expect(await made.host.files.list('/dev')).toEqual(['disk']);
  });

  test('that another process has open is refused before anything is made', async () => {
    const made = world();
    made.host.put(SOURCE, bytesWith(MIB, [[0, MIB]]));
    await makeImage(made.graph, TARGET, 'vdi', new Uint8Array(MIB));
    await withDisk(made.graph, TARGET, { format: 'vdi', writable: true }, async () => {
      await expect(convertTo(made, 'vdi')).rejects.toMatchObject({
        message: expect.stringMatching(/^\/target: error while converting vdi: .*Failed to get "write" lock$/),
      });
      expect(await names(made)).toEqual(['source', 'target']);
    });
  });

  test('may be the source, unless that is open against writers', async () => {
    const bytes = bytesWith(MIB, [[0, MIB]]);
    for (const noWriters of [false, true]) {
      const made = world();
      made.host.put(SOURCE, bytes);
      await withDisk(made.graph, SOURCE, { format: 'raw', noWriters }, async (disk) => {
        const target = { filename: SOURCE, format: 'vdi' };
        const converted = convert({ graph: made.graph, sources: [disk], target });
        if (noWriters) await expect(converted).rejects.toThrow('Failed to get "write" lock');
        else await converted;
      });
      expect(same(await contentOf(made.graph, SOURCE, noWriters ? 'raw' : 'vdi'), bytes)).toBe(true);
    }
  });
});

describe('a failure', () => {
  const data = bytesWith(12 * MIB, [[0, 12 * MIB]]);

  async function failing(
    inject: (made: World) => void,
    options: Options = {},
  ): Promise<{ made: World; error: unknown }> {
    const made = world({ latency: { min: 0, max: 5 } });
    made.host.put(SOURCE, data);
    inject(made);
    const error = await convertTo(made, 'vdi', options).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(await names(made)).toEqual(['source']);
    expect(made.host.openFiles).toEqual([]);
    return { made, error };
  }

  test('of reading says where, and leaves nothing (T-CONV-6)', async () => {
    const { error } = await failing(({ host }) =>
      host.faults.inject({ operation: 'read', path: SOURCE, code: 'EIO', offset: 7 * MIB, length: 512 }),
    );
    expect(error).toMatchObject({ code: 'EIO', message: 'error while reading at byte 6291456: Input/output error' });
  });

  test('of space says how far it came, and leaves nothing', async () => {
    const { error } = await failing(({ host }) => {
      host.capacity = 12 * MIB + 5 * MIB;
    });
    expect(error).toMatchObject({
      code: 'ENOSPC',
      message: expect.stringMatching(/^error while writing at byte \d+: No space left on device$/),
    });
  });

  test('of the last flush or of giving the name leaves nothing either', async () => {
    const { error } = await failing(({ host }) => host.faults.inject({ operation: 'rename', code: 'EIO' }));
    expect(error).toMatchObject({ code: 'EIO' });
  });

  test('of making the file names the target, not the file beside it', async () => {
    const { error } = await failing(({ host }) =>
      host.faults.inject({ operation: 'write', code: 'ENOSPC', times: 1, skip: 0 }),
    );
    expect((error as Error).message).not.toMatch(/partial/);
  });

  test('an abort rejects with its reason and leaves nothing', async () => {
    const controller = new AbortController();
    const { error } = await failing(() => {}, {
      signal: controller.signal,
      progress: (done) => done >= 4 * MIB && controller.abort('enough'),
    });
    expect(error).toBe('enough');
  });

  test('leaves what had the name before', async () => {
    const made = world();
    made.host.put(SOURCE, data);
    made.host.put(TARGET, 4096);
    made.host.faults.inject({ operation: 'read', path: SOURCE, code: 'EIO', offset: 7 * MIB });
    await expect(convertTo(made, 'raw')).rejects.toThrow('error while reading');
    expect(made.host.contents(TARGET)).toEqual(new Uint8Array(4096));
    expect(await names(made)).toEqual(['source', 'target']);
  });
});

describe('salvaging (T-CONV-6)', () => {
  test('turns sectors that cannot be read into zeroes, with a warning each', async () => {
    const made = world();
    const bytes = bytesWith(4 * MIB, [[0, 4 * MIB]]);
    made.host.put(SOURCE, bytes);
    made.host.faults.inject({ operation: 'read', path: SOURCE, code: 'EIO', offset: 3 * MIB, length: 1024 });
    const warnings: string[] = [];
    await convertTo(made, 'raw', { salvage: true, warn: (line) => warnings.push(line) });
    bytes.fill(0, 3 * MIB, 3 * MIB + 1024);
    expect(same(made.host.contents(TARGET), bytes)).toBe(true);
    expect(warnings).toEqual([
      'error while reading offset 3145728: Input/output error',
      'error while reading offset 3146240: Input/output error',
    ]);
  });

  test('takes what has no status as data', async () => {
    const made = world();
    const bytes = bytesWith(MIB, [[0, MIB]]);
    made.host.put(SOURCE, bytes);
    const warnings: string[] = [];
    await withDisk(made.graph, SOURCE, { format: 'raw' }, async (disk) => {
      statusFails(disk);
      const target = { filename: TARGET, format: 'raw' };
      const base = { graph: made.graph, sources: [disk], target };
      await expect(convert(base)).rejects.toThrow('error while reading block status at offset 0: Input/output error');
      await convert({ ...base, salvage: true, warn: (line) => warnings.push(line) });
    });
    expect(same(made.host.contents(TARGET), bytes)).toBe(true);
    expect(warnings).toEqual(['error while reading block status at offset 4096: Input/output error']);
  });
});

/** Makes the status of the sector at 4096 an error, also in longer ranges. */
function statusFails(disk: Disk): void {
  const status = disk.status.bind(disk);
  disk.tryStatusNow = () => undefined;
  disk.status = (offset, length) => {
    if (offset <= 4096 && offset + length > 4096) {
      return Promise.reject(new BlockError('EIO', 'no'));
    }
    return status(offset, length);
  };
}

describe('order and speed', () => {
  test('writes begin in ascending order unless that is not asked for', async () => {
    const made = world({ latency: { min: 0, max: 50 } });
    made.host.put(SOURCE, bytesWith(40 * MIB, [[0, 40 * MIB]]));
    await convertTo(made, 'vdi');
    const disk = await made.graph.open(TARGET, { format: 'vdi' });
    let last = -1;
    for (let offset = 0; offset < disk.length; offset += MIB) {
      const at = (await disk.status(offset, MIB)).at?.offset ?? -1;
      expect(at).toBeGreaterThan(last);
      last = at;
    }
    await disk.close();
  });

  test('no more than the limit is written a second', async () => {
    const made = world({ record: false });
    made.host.put(SOURCE, bytesWith(20 * MIB, [[0, 20 * MIB]]));
    const start = made.host.clock.now();
    await convertTo(made, 'raw', { rateLimit: 2 * MIB });
    expect(made.host.clock.now() - start).toBeGreaterThan(8500);
    expect(made.host.clock.now() - start).toBeLessThan(10_500);
  });

  test('the host copies where that is asked for and nothing need be looked at', async () => {
    const bytes = bytesWith(5 * MIB, [[0, 5 * MIB]]);
    for (const [options, copies] of [
      [{}, 0],
      [{ copyOffload: true }, 3],
      [{ sparseSize: 0 }, 3],
    ] as const) {
      const made = world({ record: false });
      made.host.put(SOURCE, bytes);
      await convertTo(made, 'raw', options);
      expect(made.host.counters.operations.copyFrom ?? 0).toBe(copies);
      expect(same(made.host.contents(TARGET), bytes)).toBe(true);
    }
  });

  test('a host that cannot copy is asked a few times at most', async () => {
    const bytes = bytesWith(40 * MIB, [[0, 40 * MIB]]);
    const made = world({ record: false, missing: ['copyFrom'] });
    made.host.put(SOURCE, bytes);
    await convertTo(made, 'raw', { copyOffload: true });
    expect(same(made.host.contents(TARGET), bytes)).toBe(true);
    expect(made.host.counters.operations.copyFrom ?? 0).toBeLessThanOrEqual(8);
  });
});

test('progress grows from none to all of what is to be copied, not of the holes', async () => {
  const made = world();
  const disk = await made.graph.open({ driver: 'raw', file: { driver: 'memory', size: 2 ** 40 } }, { writable: true });
  await disk.write(2 ** 39, bytesWith(6 * MIB, [[0, 6 * MIB]]));
  const seen: [number, number][] = [];
  await convert({
    graph: made.graph,
    sources: [disk],
    target: { filename: TARGET, format: 'raw' },
    progress: (done, total) => seen.push([done, total]),
  });
  await disk.close();
  const total = 6 * MIB;
  expect(seen[0]).toEqual([0, total]);
  expect(seen.at(-1)).toEqual([total, total]);
  expect(seen.length).toBeGreaterThan(3);
  for (const [index, [done]] of seen.entries()) expect(done).toBeGreaterThanOrEqual(seen[index - 1]?.[0] ?? 0);
});
