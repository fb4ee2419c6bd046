import { describe, expect, test } from 'vitest';
import type { Disk } from '../index.ts';
import {
  CrashConsistencyError,
  type CrashConsistencyOptions,
  type CrashState,
  expectCrashConsistent,
} from './index.ts';

const SIZE = 64 * 1024;

/** A record of two parts: data, and a sector that says which. */
async function writeRecords(disk: Disk, mark: (name: string) => Promise<void>, barrier: boolean): Promise<void> {
  for (let turn = 1; turn <= 4; turn++) {
    await disk.write(8192, new Uint8Array(2048).fill(turn));
    if (barrier) await disk.flush();
    await disk.write(0, new Uint8Array(512).fill(turn));
    await disk.flush();
    await mark(`turn ${turn}`);
  }
}

async function checkRecords(disk: Disk, { marks }: CrashState): Promise<void> {
  const [turn = 0] = await disk.read(0, 1);
  if (turn < marks.length) throw new Error(`turn ${marks.length} was confirmed, the disk says ${turn}`);
  const data = await disk.read(8192, 2048);
  if (data.some((byte) => byte < turn)) throw new Error(`the disk says ${turn}, its data are older`);
}

async function failureOf(options: Partial<CrashConsistencyOptions> = {}): Promise<CrashConsistencyError> {
  const run = expectCrashConsistent((disk, mark) => writeRecords(disk, mark, false), checkRecords, {
    size: SIZE,
    ...options,
  });
  const error = await run.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof CrashConsistencyError)) throw error ?? new Error('nothing was found');
  return error;
}

describe('expectCrashConsistent', () => {
  test('passes what has its barriers', async () => {
    const report = await expectCrashConsistent((disk, mark) => writeRecords(disk, mark, true), checkRecords, {
      size: SIZE,
    });
    expect(report).toMatchObject({ epochs: 8, changes: 8, failed: 0, exhaustive: true });
    expect(report.tried).toBeGreaterThan(4 * 16);
  });

  test('names the seed and the one write whose loss is not survived', async () => {
    const error = await failureOf({ seed: 7 });
    expect(error.message).toMatch(
      /^Not crash-consistent \(seed 7, atomic 512, state \d+\):\nPower cut after 2 entries/,
    );
    expect(error.message).toContain('one is lost:\n  write of 2048 bytes at 8192 (entry 0)');
    expect(error.message).toContain('fails: the disk says 1, its data are older');
    expect(error.report.failure?.lost.length).toBe(1);
  });

  test('with one seed, 100 runs end alike', async () => {
    const outcomes = new Set<string>();
    for (let run = 0; run < 100; run++) {
      const { message, report } = await failureOf({ seed: 11, states: 40, host: { latency: { min: 0, max: 3 } } });
      outcomes.add(`${message} ${JSON.stringify(report)}`);
    }
    expect(outcomes.size).toBe(1);
  });

  test('refuses sizes that no disk has', async () => {
    for (const size of [0, -512, 100, 1.5, Number.NaN]) {
      const run = expectCrashConsistent(
        async () => {},
        () => {},
        { size },
      );
      await expect(run).rejects.toThrow(new RangeError(`size must be a positive multiple of 512, not ${size}`));
    }
  });

  test('on a VDI, what is flushed is there', async () => {
    const report = await expectCrashConsistent((disk, mark) => writeRecords(disk, mark, true), checkRecords, {
      size: SIZE,
      format: 'vdi',
      createOptions: { 'block-size': 4096 },
      states: 200,
    });
    expect(report.failed).toBe(0);
    expect(report.tried).toBeGreaterThan(50);
  });
});

test('a durable write makes nothing else durable: what it refers to may be gone', async () => {
  const sector = (value: number) => new Uint8Array(512).fill(value);
  const tried = (fua: boolean) =>
    expectCrashConsistent(
      async (disk, mark) => {
        await disk.write(512, sector(1), { fua });
        await disk.write(0, sector(2), { fua: true });
        await mark('stored');
      },
      async (disk, { marks }) => {
        const [head, data] = [(await disk.read(0, 1))[0], (await disk.read(512, 1))[0]];
        if (head === 2 && data !== 1) throw new Error('what it refers to is gone');
        if (marks.length > 0 && head !== 2) throw new Error('what is durable is gone');
      },
      { size: 65536 },
    );
  await expect(tried(false)).rejects.toThrow(
    'one is lost:\n  write of 512 bytes at 512 (entry 0)\nfails: what it refers',
  );
  expect((await tried(true)).failed).toBe(0);
});
