import { describe, expect, test } from 'vitest';
import { parseOptions } from '../../core/options.ts';
import { createOptions } from './create.ts';
import { measure } from './measure.ts';

const MIB = 1 << 20;

async function* runs(...pieces: readonly (readonly [offset: number, length: number, zero: boolean])[]) {
  for (const [offset, length, zero] of pieces) yield { offset, length, zero };
}

function measured(size: number, given: Record<string, string>, extents?: ReturnType<typeof runs>) {
  const { values } = parseOptions(createOptions, given);
  return measure({ options: values, size, extents });
}

describe('measuring (T-MEAS-1)', () => {
  test('of a size alone: header and map, and all blocks', async () => {
    expect(await measured(10 * MIB, {})).toEqual({ required: MIB, fullyAllocated: 11 * MIB });
    expect(await measured(0, {})).toEqual({ required: MIB, fullyAllocated: MIB });
  });

  test('of content: every block with data in it, once', async () => {
    const extents = runs(
      [0, 100, false],
      [100, 900, true],
      [1000, 2000, false],
      [3000, 3 * MIB, true],
      [3 * MIB + 3000, MIB, false],
      [4 * MIB + 3000, 100, false],
      [9 * MIB, MIB, true],
    );
    expect(await measured(10 * MIB, {}, extents)).toEqual({ required: 4 * MIB, fullyAllocated: 11 * MIB });
  });

  test('options count', async () => {
    const extents = () => runs([0, MIB, true], [MIB, 1, false]);
    const small = { 'block-size': '64k', 'data-align': '512' };
    expect(await measured(2 * MIB, small, extents())).toEqual({
      required: 1024 + 65536,
      fullyAllocated: 1024 + 2 * MIB,
    });
    expect((await measured(2 * MIB, { static: 'on' }, extents())).required).toBe(3 * MIB);
  });

  test('what cannot be made cannot be measured', async () => {
    await expect(measured(2 ** 52, {})).rejects.toThrow('Unsupported VDI image size');
  });
});
