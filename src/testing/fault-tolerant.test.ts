/** Which faults are a workload's undoing: the seed, the fewest of them, the same in every run. */
import { describe, expect, test } from 'vitest';
import type { Disk } from '../core/disk.ts';
import { expectFaultTolerant, type FaultRun, FaultToleranceError, type RuleOptions } from './index.ts';

const SECTOR = 512;
const COPIES = [0, 8192] as const;
const sector = (value: number) => new Uint8Array(SECTOR).fill(value);

/** Every value is stored twice, and a write that fails is tried again, `attempts` times in all. */
function store(attempts: number) {
  return async (disk: Disk, { stop }: FaultRun): Promise<void> => {
    for (let value = 1; value <= 5; value++) for (const copy of COPIES) await put(disk, copy, value, attempts);
    stop();
    for (const copy of COPIES) {
      const [found] = await disk.read(copy, SECTOR);
      if (found !== 5) throw new Error(`the copy at ${copy} is ${found}`);
    }
  };
}

async function put(disk: Disk, offset: number, value: number, attempts: number): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await disk.write(offset, sector(value));
      return;
    } catch (error) {
      if (attempt === attempts) throw new Error(`given up after ${attempts} attempts`, { cause: error });
    }
  }
}

const MAYBE: readonly RuleOptions[] = [{ event: 'none', ioTypes: ['write'], probability: 0.2, errno: 'EIO' }];

async function found(work: Promise<unknown>): Promise<FaultToleranceError> {
  const error = await work.then(() => undefined).catch((thrown: unknown) => thrown);
  if (!(error instanceof FaultToleranceError)) throw new Error(`not found: ${error}`);
  return error;
}

describe('expectFaultTolerant', () => {
  test('tells of runs and faults where all goes well', async () => {
    const report = await expectFaultTolerant(store(1000), { size: 65536, rules: MAYBE, runs: 20 });
    expect(report.runs).toBe(20);
    expect(report.faults).toBeGreaterThan(20);
  });

  test('finds the two faults in a row that are too many, however many others there were', async () => {
    const error = await found(expectFaultTolerant(store(2), { size: 65536, rules: MAYBE }));
    expect(error.minimal).toBe(true);
    const [first, second] = error.faults;
    expect([error.faults.length, second?.index, second?.offset]).toEqual([2, (first?.index ?? 0) + 1, first?.offset]);
    expect(error.message).toBe(
      [
        `Not fault-tolerant (seed ${error.seed}); 2 faults are enough:`,
        ...error.faults.map(({ index, offset }) => `  write of 512 bytes at ${offset} (request ${index}): EIO`),
        'fails: given up after 2 attempts',
      ].join('\n'),
    );
    expect(error.cause).toMatchObject({ message: 'given up after 2 attempts' });
  });

  test('one seed, one outcome, in every run; another seed, another one', async () => {
    const once = (first: number) => found(expectFaultTolerant(store(2), { size: 65536, rules: MAYBE, seed: first }));
    const { message, seed } = await once(1);
    // The seed that is told repeats it at once.
    for (let run = 0; run < 20; run++) expect((await once(seed)).message).toBe(message);
    expect((await once(seed + 1)).message).not.toBe(message);
  });

  test.each([
    [{ action: 'drop' }, 'told as done, never done'],
    [{ action: 'torn', bytes: 0, errno: undefined }, 'torn after 0 bytes, told as done'],
    [{ action: 'misdirect', target: 4096 }, 'lands at 4096'],
    [{ action: 'corrupt', bits: [1] }, 'bit 1 flipped'],
    [{ action: 'corrupt', bits: [1, 2] }, 'bits 1, 2 flipped'],
  ] as const)('silent faults: %j', async (fault, text) => {
    const rules = [{ event: 'none', ioTypes: ['write'], after: 9, ...fault }] as const;
    const error = await found(expectFaultTolerant(store(1), { size: 65536, rules, runs: 1 }));
    expect(error.message).toContain(`1 fault is enough:\n  write of 512 bytes at 8192 (request 9): ${text}\n`);
  });

  test('delays and flushes', async () => {
    const slow = async (disk: Disk, { host }: FaultRun) => {
      const before = host.clock.now();
      await disk.write(0, sector(1));
      await disk.flush();
      if (host.clock.now() - before > 1000) throw new Error('too slow');
    };
    const rules: readonly RuleOptions[] = [{ event: 'none', action: 'delay', delayMs: 5000, ioTypes: ['flush'] }];
    const error = await found(expectFaultTolerant(slow, { size: 65536, rules }));
    expect(error.message).toBe(
      'Not fault-tolerant (seed 1); 1 fault is enough:\n  flush (request 1): 5000 ms later\nfails: too slow',
    );
  });

  test('a workload that fails on a sound disk', async () => {
    const wrong = async (disk: Disk) => {
      await disk.write(0, sector(1)).catch(() => {});
      throw new Error('wrong');
    };
    const error = await found(expectFaultTolerant(wrong, { size: 65536, rules: [{ event: 'none' }] }));
    expect(error.message).toBe('Not fault-tolerant (seed 1); it fails without any fault\nfails: wrong');
    expect(error.faults).toEqual([]);
  });

  test('where tries run out, it says so', async () => {
    const rules: readonly RuleOptions[] = [{ event: 'none', ioTypes: ['write'], errno: 'EIO' }];
    const error = await found(expectFaultTolerant(store(8), { size: 65536, rules, tries: 2 }));
    expect([error.minimal, error.faults.length]).toEqual([false, 8]);
    expect(error.message).toContain('8 faults are enough (it may take fewer):\n');
  });

  test('starts from given content; options out of range are refused', async () => {
    const content = sector(7);
    const keeps = async (disk: Disk) => {
      if ((await disk.read(0, 1))[0] !== 7) throw new Error('it is gone');
    };
    expect(await expectFaultTolerant(keeps, { size: 65536, rules: [], content, runs: 2 })).toEqual({
      runs: 2,
      faults: 0,
    });
    await expect(expectFaultTolerant(keeps, { size: 65536, rules: [], runs: 1.5 })).rejects.toThrow(RangeError);
  });
});
