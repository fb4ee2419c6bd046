import { describe, expect, test } from 'vitest';
import { bytesWith, makeImage, randomBytes, type World, withDisk, world } from '../../tests/support/job-disks.ts';
import { BlockError } from '../core/errors.ts';
import { SeededRandom } from '../testing/index.ts';
import { type CompareOptions, type Comparison, compare, STATUS_FAILURE } from './compare.ts';

interface Image {
  readonly format: string;
  readonly bytes: Uint8Array;
}

async function put({ graph }: World, path: string, { format, bytes }: Image): Promise<void> {
  await makeImage(graph, path, format, bytes);
}

/** Compares two disks both ways round, which must agree. */
async function compared(a: Image, b: Image, options: CompareOptions = {}): Promise<Comparison> {
  const made = world({ record: false });
  await put(made, '/a', a);
  await put(made, '/b', b);
  return withDisk(made.graph, '/a', { format: a.format }, (first) =>
    withDisk(made.graph, '/b', { format: b.format }, async (second) => {
      const result = await compare(first, second, options);
      expect(await compare(second, first, options)).toEqual(result);
      return result;
    }),
  );
}

const raw = (bytes: Uint8Array): Image => ({ format: 'raw', bytes });
const vdi = (bytes: Uint8Array): Image => ({ format: 'vdi', bytes });
const MIB = 1 << 20;

describe('content (T-CMP-1)', () => {
  test('is the same in any format', async () => {
    const bytes = bytesWith(5 * MIB, [
      [MIB + 512, 3000],
      [4 * MIB, 100_000],
    ]);
    expect(await compared(raw(bytes), vdi(bytes))).toEqual({ kind: 'identical' });
  });

  test('stored zeroes equal a hole', async () => {
    const made = world();
    made.host.put('/stored', new Uint8Array(MIB));
    made.host.put('/hole', MIB);
    await withDisk(made.graph, '/stored', { format: 'raw' }, (a) =>
      withDisk(made.graph, '/hole', { format: 'raw' }, async (b) => {
        expect(await compare(a, b)).toEqual({ kind: 'identical' });
        // T-CMP-2.
        expect(await compare(a, b, { strict: true })).toEqual({ kind: 'status', offset: 0 });
      }),
    );
  });

  test('that differs is told by its first sector, whether one side is a hole or not', async () => {
    const full = bytesWith(4 * MIB, [[0, 4 * MIB]]);
    for (const at of [0, 700_000, 2 * MIB - 1, 2 * MIB, 4 * MIB - 1]) {
      const other = full.slice();
      other[at] = (other[at] ?? 0) ^ 1;
      const expected = { kind: 'content', offset: at - (at % 512) };
      expect(await compared(raw(full), vdi(other))).toEqual(expected);
      const alone = bytesWith(4 * MIB, [[at, 1]]);
      expect(await compared(raw(new Uint8Array(4 * MIB)), vdi(alone))).toEqual(expected);
    }
  });

  test('that differs in several places is told by the first of them, however requests overtake each other', async () => {
    for (let trial = 0; trial < 6; trial++) {
      const random = new SeededRandom(trial);
      const bytes = randomBytes(11 * MIB, trial);
      const other = bytes.slice();
      const places = Array.from({ length: 5 }, () => random.below(bytes.length)).sort((x, y) => x - y);
      for (const at of places) other[at] = (other[at] ?? 0) ^ 0x55;
      const [first = 0] = places;
      const { host, graph } = world({ seed: trial, latency: { min: 0, max: 20 }, refuseNow: 0.5 });
      host.put('/a', bytes);
      host.put('/b', other);
      await withDisk(graph, '/a', { format: 'raw' }, (a) =>
        withDisk(graph, '/b', { format: 'raw' }, async (b) => {
          expect(await compare(a, b)).toEqual({ kind: 'content', offset: first - (first % 512) });
        }),
      );
    }
  });
});

describe('sizes', () => {
  const short = bytesWith(MIB, [[0, 5000]]);

  test('that differ are no difference if the rest is zero', async () => {
    const long = new Uint8Array(3 * MIB);
    long.set(short);
    let told = 0;
    const sizesDiffer = () => {
      told++;
    };
    expect(await compared(vdi(short), raw(long), { sizesDiffer })).toEqual({ kind: 'identical' });
    expect(told).toBe(2);
    expect(await compared(vdi(short), raw(long), { strict: true })).toEqual({ kind: 'size' });
  });

  test('that differ are told of only once the common part was equal', async () => {
    const long = new Uint8Array(3 * MIB);
    let told = 0;
    const sizesDiffer = () => {
      told++;
    };
    expect(await compared(raw(short), raw(long), { sizesDiffer })).toEqual({ kind: 'content', offset: 0 });
    expect(told).toBe(0);
    long.set(short);
    long[2 * MIB + 1000] = 1;
    expect(await compared(raw(short), raw(long), { sizesDiffer })).toEqual({ kind: 'content', offset: 2 * MIB + 512 });
    expect(told).toBe(2);
  });
});

describe('failures', () => {
  test('of reading name offset and file (T-CMP-3)', async () => {
    const made = world();
    await put(made, '/a', raw(bytesWith(6 * MIB, [[0, 6 * MIB]])));
    await put(made, '/b', raw(bytesWith(6 * MIB, [[0, 6 * MIB]])));
    made.host.faults.inject({ operation: 'read', path: '/b', code: 'EIO', offset: 5 * MIB });
    await withDisk(made.graph, '/a', { format: 'raw' }, (a) =>
      withDisk(made.graph, '/b', { format: 'raw' }, async (b) => {
        await expect(compare(a, b)).rejects.toMatchObject({
          code: 'EIO',
          message: 'Error while reading offset 4194304 of /b: Input/output error',
        });
      }),
    );
  });

  test('behind a difference do not matter', async () => {
    const made = world();
    const bytes = bytesWith(12 * MIB, [[0, 12 * MIB]]);
    const other = bytes.slice();
    other[100] = (other[100] ?? 0) ^ 1;
    await put(made, '/a', raw(bytes));
    await put(made, '/b', raw(other));
    made.host.faults.inject({ operation: 'read', path: '/b', code: 'EIO', offset: 2 * MIB });
    await withDisk(made.graph, '/a', { format: 'raw' }, (a) =>
      withDisk(made.graph, '/b', { format: 'raw' }, async (b) => {
        expect(await compare(a, b)).toEqual({ kind: 'content', offset: 0 });
      }),
    );
  });

  test('of status are told from others by their text', async () => {
    const made = world();
    await put(made, '/a', raw(new Uint8Array(MIB)));
    await withDisk(made.graph, '/a', { format: 'raw' }, (a) =>
      withDisk(made.graph, '/a', { format: 'raw' }, async (b) => {
        b.tryStatusNow = () => undefined;
        b.status = () => Promise.reject(new BlockError('EIO', 'no'));
        await expect(compare(a, b)).rejects.toThrow(`${STATUS_FAILURE} /a: Input/output error`);
      }),
    );
  });

  test('an abort stops it', async () => {
    const controller = new AbortController();
    controller.abort('enough');
    const image = raw(bytesWith(MIB, [[0, MIB]]));
    const made = world();
    await put(made, '/a', image);
    await withDisk(made.graph, '/a', { format: 'raw' }, async (a) => {
      await expect(compare(a, a, { signal: controller.signal })).rejects.toBe('enough');
    });
  });
});

test('progress grows from none to all, tails included', async () => {
  const seen: number[] = [];
  const long = bytesWith(9 * MIB, [[0, 3 * MIB]]);
  const progress = (done: number, total: number) => {
    expect(total).toBe(9 * MIB);
    seen.push(done);
  };
  const made = world();
  await put(made, '/a', raw(long));
  await put(made, '/b', raw(long.slice(0, 5 * MIB)));
  await withDisk(made.graph, '/a', { format: 'raw' }, (a) =>
    withDisk(made.graph, '/b', { format: 'raw' }, (b) => compare(a, b, { progress })),
  );
  expect(seen[0]).toBe(0);
  expect(seen.at(-1)).toBe(9 * MIB);
  expect([...seen].sort((x, y) => x - y)).toEqual(seen);
});
