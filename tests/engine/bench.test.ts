/** Many requests of one size (T-BENCH-1). */
import { describe, expect, test } from 'vitest';
import { type BenchOptions, benchDisk } from '../../src/jobs/bench.ts';
import { SimClock } from '../../src/testing/sim-clock.ts';
import { failing, gate, graphOf, Storage, storageProtocol } from './storage.ts';

const PAGE = 4096;

async function opened() {
  const storage = new Storage(16 * PAGE);
  const disk = await graphOf([storageProtocol(storage)]).open({ driver: 'store' }, { writable: true });
  return { storage, disk };
}

function options(changes: Partial<BenchOptions>): BenchOptions {
  const plain = { write: true, count: 8, depth: 2, size: PAGE, offset: 0, step: PAGE, pattern: 1, flushInterval: 0 };
  return { ...plain, drain: true, clock: new SimClock(), ...changes };
}

/** Lets everything run that can. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

describe('benchDisk (T-BENCH-1)', () => {
  test('so many requests are under way at a time', async () => {
    const { storage, disk } = await opened();
    const hold = gate();
    storage.before = hold.wait;
    const run = benchDisk(disk, options({ depth: 3 }));
    await settle();
    expect(hold.waiting).toBe(3);
    hold.open();
    await run;
    expect(storage.story.filter((call) => call.startsWith('write')).length).toBe(8);
    expect(storage.bytes.subarray(0, 9 * PAGE)).toEqual(new Uint8Array(9 * PAGE).fill(1, 0, 8 * PAGE));
  });

  test('a flush comes when a multiple of the interval is left, after what is under way', async () => {
    const { storage, disk } = await opened();
    await benchDisk(disk, options({ count: 7, flushInterval: 3 }));
    expect(storage.story.map((call) => call.split(' ')[0])).toEqual([
      'write',
      'flush',
      'write',
      'write',
      'write',
      'flush',
      'write',
      'write',
      'write',
      'flush',
    ]);
  });

  test('a failure ends it when nothing is under way any more', async () => {
    const { storage, disk } = await opened();
    storage.before = failing('ENOSPC');
    await expect(benchDisk(disk, options({}))).rejects.toMatchObject({ code: 'ENOSPC' });
    storage.before = () => {};
    await disk.close();
  });

  test('an abort ends it', async () => {
    const { disk } = await opened();
    await expect(benchDisk(disk, options({ signal: AbortSignal.abort(new Error('stop')) }))).rejects.toThrow('stop');
  });
});
