import { describe, expect, test } from 'vitest';
import { randomOperations } from './disk-operations.ts';
import type { DiskUnderTest } from './disk-under-test.ts';
import { ModelDisk } from './model-disk.ts';
import { searchTrials, TrialFailure } from './trial-search.ts';

/** A disk that is a model itself, so that mistakes can be put in. */
function modelSubject(mistakes: Partial<DiskUnderTest> & { readonly model?: ModelDisk } = {}) {
  const model = mistakes.model ?? new ModelDisk(20_000);
  const disk: DiskUnderTest = {
    get length() {
      return model.length;
    },
    writable: true,
    async read(offset: number, wanted: number | Uint8Array) {
      const target = typeof wanted === 'number' ? new Uint8Array(wanted) : wanted;
      target.set(model.read(offset, target.length));
      return target;
    },
    tryReadNow: () => false,
    write: async (offset, source) => model.write(offset, source),
    tryWriteNow: () => false,
    writeZeroes: async (offset, length) => model.writeZeroes(offset, length),
    discard: async () => {},
    flush: async () => {},
    status: async (_offset, length) => ({ length, allocated: true, data: true, zero: false, depth: 0 }),
    tryStatusNow: () => undefined,
    resize: async (length) => model.truncate(length),
    check: async () => ({ corruptions: 0, leaks: 0, checkErrors: 0, corruptionsFixed: 0, leaksFixed: 0 }),
    close: async () => {},
    ...mistakes,
  };
  return { open: async () => disk };
}

const PLAN = { count: 60, length: 20_000, resize: { min: 0, max: 30_000, step: 512 } };

async function failureOf(mistakes: (model: ModelDisk) => Partial<DiskUnderTest>): Promise<TrialFailure> {
  const make = async () => {
    const model = new ModelDisk(20_000);
    return modelSubject({ ...mistakes(model), model });
  };
  try {
    await searchTrials({ make, plan: PLAN, sequences: 50 });
  } catch (error) {
    if (error instanceof TrialFailure) return error;
    throw error;
  }
  throw new Error('no difference was found');
}

describe('searchTrials', () => {
  test('a disk like the model passes', async () => {
    expect(await searchTrials({ make: async () => modelSubject(), plan: PLAN, sequences: 30 })).toBe(1800);
  });

  test('a write that loses its last byte is found and cut down to it', async () => {
    const failure = await failureOf((model) => ({
      write: async (offset, source) => model.write(offset, source.subarray(0, source.length - 1)),
    }));
    expect(failure.operations.length).toBe(1);
    expect(failure.message).toContain('"kind":"write"');
    expect(failure.message).toContain('seed ');
  });

  test('zeroes claimed where there is data are found', async () => {
    const failure = await failureOf(() => ({
      status: async (_offset, length) => ({ length, allocated: true, data: false, zero: true, depth: 0 }),
    }));
    expect(failure.message).toContain('claims');
    expect(failure.operations.map(({ kind }) => kind)).toContain('status');
  });

  test('a discard that takes a byte too many is found', async () => {
    const failure = await failureOf((model) => ({
      discard: async (offset, length) => model.writeZeroes(offset, length + 1),
    }));
    expect(failure.operations.length).toBeLessThanOrEqual(3);
  });

  test('growth that shows old bytes again is found', async () => {
    const failure = await failureOf((model) => {
      const hidden = new ModelDisk(40_000);
      return {
        write: async (offset, source) => {
          model.write(offset, source);
          hidden.write(offset, source);
        },
        resize: async (length) => {
          const before = model.length;
          model.truncate(length);
          if (length > before) model.write(before, hidden.read(before, length - before));
        },
      };
    });
    expect(failure.operations.filter(({ kind }) => kind === 'resize').length).toBe(2);
  });

  test('a byte that no request put there, while two were under way, is found', async () => {
    const failure = await failureOf((model) => {
      let writing = 0;
      return {
        write: async (offset, source) => {
          writing += 1;
          await Promise.resolve();
          const stored = source.slice();
          if (writing > 1) stored[stored.length - 1] = (stored.at(-1) ?? 0) ^ 1;
          model.write(offset, stored);
          writing -= 1;
        },
      };
    });
    expect(failure.operations.map(({ kind }) => kind)).toEqual(['together']);
    expect(failure.message).toMatch(/byte \d+ is \d+ after write/);
  });

  test('a read at once that answers other than later is found', async () => {
    const failure = await failureOf(() => ({ tryReadNow: () => true }));
    expect(failure.message).toContain('read byte');
  });
});

describe('randomOperations', () => {
  test('requests stay on the disk and keep their alignment', () => {
    for (let seed = 1; seed < 50; seed++) {
      let length = 64 * 512;
      for (const operation of randomOperations(seed, {
        count: 100,
        length,
        align: 512,
        blockSize: 4096,
        resize: { min: 512, max: 1e6, step: 512 },
      })) {
        if (operation.kind === 'resize') length = operation.length;
        const ranges = operation.kind === 'together' ? operation.operations : 'offset' in operation ? [operation] : [];
        for (const range of ranges) {
          expect(range.offset % 512).toBe(0);
          expect(range.length % 512).toBe(0);
          expect(range.length).toBeGreaterThan(0);
          expect(range.offset + range.length).toBeLessThanOrEqual(length);
        }
      }
    }
  });
});
