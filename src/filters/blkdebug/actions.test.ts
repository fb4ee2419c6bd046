/** What rules do to requests beyond errors, each the same in every run with one seed (BD-61). */
import { describe, expect, test } from 'vitest';
import type { Disk } from '../../core/disk.ts';
import { type FaultyDisk, faultyDisk } from '../../testing/index.ts';
import type { RuleOptions } from './rules.ts';

const SIZE = 1 << 20;
const SECTOR = 512;
const pattern = (value: number, length = 4096) => new Uint8Array(length).fill(value);
const outcome = (work: Promise<unknown>) => work.then(() => 'done').catch(({ code }) => code);

/** The disk with a rule that concerns writes only, unless it says otherwise. */
function withRule(rule: Omit<Extract<RuleOptions, { kind?: 'inject-error' }>, 'event'>, seed = 1): Promise<FaultyDisk> {
  return faultyDisk({ size: SIZE, seed, rules: [{ event: 'none', ioTypes: ['write'], ...rule }] });
}

async function stored({ control, disk }: FaultyDisk, offset = 0, length = 8192): Promise<Uint8Array> {
  for (const { id } of control.rules()) control.remove(id);
  return disk.read(offset, length);
}

describe('BD-61: each action', () => {
  test('delay, by what the rule says and no more than its jitter', async () => {
    const faulty = await withRule({ action: 'delay', delayMs: 20, jitterMs: 10 });
    const times: number[] = [];
    for (let i = 0; i < 20; i++) {
      const start = faulty.host.clock.now();
      await faulty.disk.write(0, pattern(1));
      times.push(faulty.host.clock.now() - start);
    }
    expect(Math.min(...times)).toBeGreaterThanOrEqual(20);
    expect(Math.max(...times)).toBeLessThan(30);
    expect(new Set(times).size).toBeGreaterThan(10);
    await faulty.disk.close();
  });

  test.each([
    ['EIO', 'EIO'],
    [undefined, 'done'],
  ] as const)('torn, and then %s', async (errno, result) => {
    const faulty = await withRule({ action: 'torn', bytes: 3 * SECTOR, errno });
    expect(await outcome(faulty.disk.write(0, pattern(1)))).toBe(result);
    const bytes = await stored(faulty);
    expect(bytes.lastIndexOf(1)).toBe(3 * SECTOR - 1);
    await faulty.disk.close();
  });

  test('torn before the first byte, and behind the last', async () => {
    for (const [bytes, last] of [
      [0, -1],
      [1 << 20, 4095],
    ] as const) {
      const faulty = await withRule({ action: 'torn', bytes, errno: undefined });
      await faulty.disk.write(0, pattern(1));
      expect((await stored(faulty)).lastIndexOf(1)).toBe(last);
      await faulty.disk.close();
    }
  });

  test('a torn zero write', async () => {
    const faulty = await withRule({ ioTypes: ['write-zeroes'], action: 'torn', bytes: SECTOR });
    await faulty.disk.write(0, pattern(1));
    expect(await outcome(faulty.disk.writeZeroes(0, 4096))).toBe('EIO');
    expect((await stored(faulty)).indexOf(1)).toBe(SECTOR);
    await faulty.disk.close();
  });

  test("corrupt: given bits of what is written, and the caller's data stay", async () => {
    const faulty = await withRule({ action: 'corrupt', bits: [0, 8 * 100 + 7, 8 * 5000] });
    const data = pattern(0);
    await faulty.disk.write(0, data);
    expect(data).toEqual(pattern(0));
    const bytes = await stored(faulty);
    expect([bytes[0], bytes[100], bytes.filter((byte) => byte !== 0).length]).toEqual([1, 128, 2]);
    await faulty.disk.close();
  });

  test('corrupt: of what is read, and what is stored stays; without bits, one that chance picks', async () => {
    const faulty = await withRule({ ioTypes: ['read'], action: 'corrupt' });
    const bytes = await faulty.disk.read(0, 4096);
    const wrong = bytes.filter((byte) => byte !== 0);
    expect([wrong.length, Math.log2(wrong[0] ?? 0) % 1]).toEqual([1, 0]);
    expect(await stored(faulty)).toEqual(pattern(0, 8192));
    await faulty.disk.close();
  });

  test('misdirect', async () => {
    const faulty = await withRule({ action: 'misdirect', target: 65536 + SECTOR });
    await faulty.disk.write(0, pattern(1));
    expect(await stored(faulty)).toEqual(pattern(0, 8192));
    expect(await stored(faulty, 65536 + SECTOR, 4096)).toEqual(pattern(1));
    await faulty.disk.close();
  });

  test('misdirect past the end: what is behind it is lost, and no disk grows', async () => {
    for (const [target, kept] of [
      [SIZE - 1000, 1000],
      [SIZE, 0],
      [SIZE * 1000, 0],
      [Number.MAX_SAFE_INTEGER, 0],
    ] as const) {
      const faulty = await withRule({ action: 'misdirect', target, ioTypes: ['write', 'write-zeroes'] });
      await faulty.disk.write(0, pattern(1));
      expect(faulty.disk.length).toBe(SIZE);
      expect((await stored(faulty, SIZE - 4096, 4096)).filter((byte) => byte === 1).length).toBe(kept);
      faulty.control.add({ event: 'none', action: 'misdirect', target });
      await faulty.disk.writeZeroes(0, 4096);
      expect(faulty.disk.length).toBe(SIZE);
      expect((await stored(faulty, SIZE - 4096, 4096)).includes(1)).toBe(false);
      await faulty.disk.close();
    }
  });

  test('drop: every kind of change, and flushes', async () => {
    const faulty = await faultyDisk({
      size: SIZE,
      rules: [{ event: 'none', action: 'drop' }],
      content: pattern(1, 8192),
    });
    await faulty.disk.write(0, pattern(2));
    await faulty.disk.writeZeroes(0, 4096);
    await faulty.disk.discard(0, 4096);
    await faulty.disk.flush();
    expect(await faulty.disk.read(0, 8192)).toEqual(pattern(1, 8192));
    await faulty.disk.close();
  });

  test('reorder: done by the next flush, and seen by reads before', async () => {
    const faulty = await withRule({ action: 'reorder' });
    const child = faulty.disk.node.filtered?.node.impl;
    const order: number[] = [];
    const write = child?.write;
    if (child === undefined || write === undefined) throw new Error('memory is written');
    child.write = (offset, source, flags) => {
      order.push(offset / SECTOR);
      return write(offset, source, flags);
    };
    for (let i = 0; i < 16; i++) await faulty.disk.write(i * SECTOR, pattern(i + 1, SECTOR));
    expect(order).toEqual([]);
    expect((await faulty.disk.read(3 * SECTOR, 1))[0]).toBe(4);
    expect(order).toEqual([3]);
    await faulty.disk.flush();
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 16 }, (_, i) => i));
    expect(order).not.toEqual([...order].sort((a, b) => a - b));
    await faulty.disk.close();
  });

  test('reorder: of two that overlap the later one stays the later one', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const faulty = await withRule({ action: 'reorder' }, seed);
      for (let i = 1; i <= 5; i++) await faulty.disk.write(i * 256, pattern(i));
      await faulty.disk.flush();
      const bytes = await stored(faulty);
      expect([1, 2, 3, 4, 5].map((i) => bytes[i * 256])).toEqual([1, 2, 3, 4, 5]);
      expect(bytes[5 * 256 + 4095]).toBe(5);
      await faulty.disk.close();
    }
  });

  test('reorder: a shorter disk, a discard or zeroes come behind what was held', async () => {
    for (const next of [(disk: Disk) => disk.writeZeroes(0, 4096), (disk: Disk) => disk.discard(0, 4096)]) {
      const faulty = await withRule({ action: 'reorder' });
      await faulty.disk.write(0, pattern(1));
      await next(faulty.disk);
      await faulty.disk.flush();
      expect((await stored(faulty))[0]).toBe(0);
      await faulty.disk.close();
    }
  });

  test('what closes does what was held', async () => {
    const faulty = await withRule({ action: 'reorder' });
    await faulty.disk.write(0, pattern(3));
    const child = faulty.disk.node.filtered?.node;
    if (child === undefined) throw new Error('it has one');
    faulty.disk.graph.hold(child);
    await faulty.disk.close();
    const bytes = new Uint8Array(4096);
    await child.impl.read(0, bytes);
    expect(bytes).toEqual(pattern(3));
    await faulty.disk.graph.release(child);
  });

  test('a range of bytes is hit where it and the request overlap', async () => {
    const faulty = await withRule({ range: { offset: 1000, length: 100 } });
    const results: string[] = [];
    for (const [offset, length] of [
      [0, 1000],
      [0, 1001],
      [1050, 1],
      [1099, 500],
      [1100, 500],
    ] as const) {
      results.push(await outcome(faulty.disk.write(offset, pattern(1, length))));
    }
    expect(results).toEqual(['done', 'EIO', 'EIO', 'EIO', 'done']);
    await faulty.disk.close();
  });
});

const MIXED: readonly RuleOptions[] = [
  { event: 'none', action: 'delay', delayMs: 3, jitterMs: 9, probability: 0.3 },
  { event: 'none', action: 'torn', bytes: 700, ioTypes: ['write'], probability: 0.1 },
  { event: 'none', action: 'corrupt', probability: 0.1 },
  { event: 'none', action: 'misdirect', target: 8192, ioTypes: ['write'], every: 7 },
  { event: 'none', action: 'drop', ioTypes: ['write', 'flush'], every: 5, after: 3 },
  { event: 'none', action: 'reorder', ioTypes: ['write'], probability: 0.5 },
  { event: 'none', errno: 'ENOSPC', probability: 0.05, once: true },
];

/** Everything that can be seen of one run. */
async function run(rules: readonly RuleOptions[], seed: number): Promise<string> {
  const { disk, control, host } = await faultyDisk({ size: 16384, seed, rules });
  const seen: unknown[] = [];
  for (let i = 0; i < 16; i++) {
    const offset = ((i * 5) % 16) * 1024;
    // Several at once.
    const results = await Promise.all([
      outcome(disk.write(offset, pattern(i + 1, 1024))),
      outcome(disk.write((offset + 8192) % 16384, pattern(100 + i, 512))),
      i % 4 === 3 ? outcome(disk.flush()) : 'done',
    ]);
    const bytes: number[] = await disk
      .read(offset, 512)
      .then((read) => [...read])
      .catch(() => [-1]);
    seen.push(
      results,
      host.clock.now(),
      bytes[0],
      bytes.reduce((sum, byte) => sum + byte, 0),
    );
  }
  seen.push(control.rules().map(({ hits }) => hits));
  for (const { id } of control.rules()) control.remove(id);
  seen.push(await disk.read(0, 16384).then((bytes) => Buffer.from(bytes).toString('base64')));
  await disk.close();
  return JSON.stringify(seen);
}

test.each([
  ...MIXED.map((rule) => [('action' in rule && rule.action) || 'error', 10, [rule]] as const),
  ['all together', 100, MIXED] as const,
])('BD-61: %s: one seed, %d runs, one outcome', async (_name, runs, rules) => {
  const first = await run(rules, 42);
  for (let i = 1; i < runs; i++) expect(await run(rules, 42)).toBe(first);
  const random = rules.some((rule) => 'probability' in rule);
  if (random) expect(await run(rules, 43)).not.toBe(first);
});
