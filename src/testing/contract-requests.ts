/** Contract cases: reads and writes of every shape. */

import type { CaseContext, CaseTable } from './contract-subject.ts';
import { operationData } from './disk-operations.ts';
import type { DiskUnderTest } from './disk-under-test.ts';
import { codeOfFailure, expectBytes, expectCode, expectFilled, expectThat } from './expectations.ts';
import { ModelDisk } from './model-disk.ts';

/** Offsets and lengths on, before and after the places where drivers like to go wrong. */
function shapes({ blockSize, length }: CaseContext): { offset: number; length: number }[] {
  const offsets = [0, 1, 511, 512, 513, 4095, 4096, blockSize - 1, blockSize, blockSize + 1, 2 * blockSize - 512];
  const lengths = [1, 2, 511, 512, 513, 4096, 4097, blockSize - 1, blockSize, blockSize + 1, 2 * blockSize + 3];
  const all = offsets.flatMap((offset) => lengths.map((size) => ({ offset, length: size })));
  return [
    ...all.filter((shape) => shape.offset + shape.length <= length),
    { offset: length - 1, length: 1 },
    { offset: length - 513, length: 513 },
  ];
}

export async function expectContent(disk: DiskUnderTest, expected: Uint8Array, what: string): Promise<void> {
  expectBytes(await disk.read(0, expected.length), expected, what);
}

export const requestCases: CaseTable = {
  'has the length it was made with': async ({ disk, length }) => {
    expectThat(disk.length === length, `the length is ${disk.length} instead of ${length}`);
  },

  'reads zeroes at first': async ({ disk, length }) => {
    const target = new Uint8Array(length).fill(0xee);
    await disk.read(0, target);
    expectFilled(target, 0, 'a fresh disk');
  },

  'reads into the buffer it is given, and nowhere else': async ({ disk }) => {
    const buffer = new Uint8Array(1000).fill(0xee);
    const target = buffer.subarray(100, 100 + 700);
    expectThat((await disk.read(13, target)) === target, 'read resolves with the buffer');
    expectFilled(target, 0, 'the buffer');
    expectFilled(buffer.subarray(0, 100), 0xee, 'before the buffer');
    expectFilled(buffer.subarray(800), 0xee, 'after the buffer');
  },

  'refuses ranges that reach past the end': async ({ disk, length }) => {
    for (const [offset, size] of [
      [length, 1],
      [length - 1, 2],
      [0, length + 1],
      [length + 4096, 512],
      [2 ** 52, 1],
    ] as const) {
      const what = `of ${Math.min(size, 8192)} bytes at ${offset}`;
      const data = new Uint8Array(Math.min(size, length + 1));
      await expectCode(disk.read(offset, data), ['EIO'], `a read ${what}`);
      await expectCode(disk.write(offset, data), ['EIO', 'ENOSPC'], `a write ${what}`);
      await expectCode(disk.writeZeroes(offset, size), ['EIO', 'ENOSPC'], `a zero write ${what}`);
      await expectCode(disk.discard(offset, size), ['EIO'], `a discard ${what}`);
      await expectCode(disk.status(offset, size), ['EIO'], `block status ${what}`);
      expectThat(!disk.tryReadNow(offset, data), `an immediate read ${what} must be refused`);
      expectThat(!disk.tryWriteNow(offset, data), `an immediate write ${what} must be refused`);
    }
    expectThat(disk.length === length, 'the length stays as it was');
    expectFilled(await disk.read(0, length), 0, 'the disk after refused writes');
  },

  'does nothing for empty requests, up to the very end': async ({ disk, length }) => {
    for (const offset of [0, 5, length]) {
      await disk.read(offset, 0);
      await disk.write(offset, new Uint8Array(0));
      await disk.writeZeroes(offset, 0);
      await disk.discard(offset, 0);
    }
    expectFilled(await disk.read(0, length), 0, 'the disk after empty writes');
  },

  'takes offsets that are no whole numbers for a mistake of the caller': async ({ disk }) => {
    for (const offset of [-1, 0.5, Number.NaN, 2 ** 53]) {
      const errors = await Promise.allSettled([
        disk.read(offset, 1),
        disk.write(offset, new Uint8Array(1)),
        disk.writeZeroes(offset, 1),
        disk.discard(offset, 1),
        disk.status(offset, 1),
      ]);
      for (const { status } of errors) expectThat(status === 'rejected', `offset ${offset} must be refused`);
      expectThat(!disk.tryReadNow(offset, new Uint8Array(1)), `an immediate read at ${offset} must be refused`);
      expectThat(!disk.tryWriteNow(offset, new Uint8Array(1)), `an immediate write at ${offset} must be refused`);
    }
  },
};

export const writeCases: CaseTable = {
  'writes and reads at any alignment and of any length': async (context) => {
    const { disk, length } = context;
    const model = new ModelDisk(length);
    let seed = 1;
    for (const shape of shapes(context)) {
      const data = operationData(seed++, shape.length);
      const kept = data.slice();
      await disk.write(shape.offset, data);
      expectBytes(data, kept, 'the source of a write');
      model.write(shape.offset, data);
      const what = `${shape.length} bytes at ${shape.offset}`;
      expectBytes(await disk.read(shape.offset, shape.length), data, what);
    }
    for (const shape of shapes(context)) {
      const what = `${shape.length} bytes at ${shape.offset}`;
      expectBytes(await disk.read(shape.offset, shape.length), model.read(shape.offset, shape.length), what);
    }
    await expectContent(disk, model.bytes, 'everything');
  },

  'writes one whole disk at once and reads it in pieces': async ({ disk, length }) => {
    const data = operationData(7, length);
    await disk.write(0, data);
    for (let offset = 0; offset < length; offset += 10_007) {
      const size = Math.min(10_007, length - offset);
      expectBytes(await disk.read(offset, size), data.subarray(offset, offset + size), `from ${offset}`);
    }
  },

  'answers at once as it would have later': async (context) => {
    const { disk, length } = context;
    const model = new ModelDisk(length);
    let seed = 100;
    for (const shape of shapes(context)) {
      const data = operationData(seed++, shape.length);
      if (!disk.tryWriteNow(shape.offset, data)) await disk.write(shape.offset, data);
      model.write(shape.offset, data);
      const target = new Uint8Array(shape.length);
      const what = `${shape.length} bytes at ${shape.offset}`;
      if (disk.tryReadNow(shape.offset, target)) expectBytes(target, data, `at once, ${what}`);
      expectBytes(await disk.read(shape.offset, shape.length), data, `later, ${what}`);
    }
    await expectContent(disk, model.bytes, 'everything');
  },

  'keeps all of many small writes to one place at one time': async ({ disk, blockSize }) => {
    const base = blockSize - 300;
    const writes = Array.from({ length: 60 }, (_, i) => disk.write(base + i * 10, new Uint8Array(10).fill(i + 1)));
    await Promise.all(writes);
    const found = await disk.read(base, 600);
    for (let i = 0; i < 60; i++) expectFilled(found.subarray(i * 10, i * 10 + 10), i + 1, `write ${i}`);
  },

  'gives every byte to one of the writes that overlap': async ({ disk, blockSize, length }) => {
    const writers = Array.from({ length: 12 }, (_, i) => ({ offset: i * 371, size: blockSize + i * 97, value: i + 1 }));
    await Promise.all(writers.map(({ offset, size, value }) => disk.write(offset, new Uint8Array(size).fill(value))));
    const found = await disk.read(0, length);
    const edges = [0, length, ...writers.flatMap(({ offset, size }) => [offset, offset + size])].sort((a, b) => a - b);
    for (const [i, start] of edges.entries()) {
      const between = found.subarray(start, edges[i + 1] ?? length);
      const writes = writers.filter(({ offset, size }) => start >= offset && start < offset + size);
      const allowed = new Set(writes.length === 0 ? [0] : writes.map(({ value }) => value));
      const bad = between.findIndex((byte) => !allowed.has(byte));
      expectThat(bad < 0, `byte ${start + bad} is ${between[bad]}, which no write gave it`);
    }
  },

  'runs reads beside writes without mixing up places': async ({ disk, blockSize, length }) => {
    const value = (block: number) => (block % 250) + 1;
    const blocks = Math.floor(length / blockSize);
    const run = async (block: number) => {
      const offset = block * blockSize;
      await disk.write(offset, new Uint8Array(blockSize).fill(value(block)));
      expectFilled(await disk.read(offset, blockSize), value(block), `block ${block}`);
    };
    await Promise.all(Array.from({ length: blocks }, (_, block) => run(block)));
  },

  'keeps what a forced write stored': async ({ disk, reopen, subject, blockSize }) => {
    await disk.write(blockSize + 5, new Uint8Array(100).fill(9), { fua: true });
    await disk.writeZeroes(blockSize + 20, 30, { fua: true });
    const expected = new Uint8Array(100).fill(9).fill(0, 15, 45);
    expectBytes(await disk.read(blockSize + 5, 100), expected, 'before closing');
    if (subject.persistent === false) return;
    expectBytes(await (await reopen()).read(blockSize + 5, 100), expected, 'after opening again');
  },

  'keeps what was written, with and without a flush before closing': async ({ disk, reopen, subject, length }) => {
    if (subject.persistent === false) return;
    const data = operationData(5, length);
    await disk.write(0, data);
    await disk.flush();
    const again = await reopen({ writable: true });
    expectBytes(await again.read(0, length), data, 'after a flush');
    await again.write(3, new Uint8Array([1, 2, 3]));
    data.set([1, 2, 3], 3);
    expectBytes(await (await reopen()).read(0, length), data, 'without a flush');
  },

  'flushes any number of times, also beside writes': async ({ disk }) => {
    await disk.flush();
    await disk.flush();
    const work = Array.from({ length: 20 }, (_, i) =>
      i % 3 === 0 ? disk.flush() : disk.write(i * 1000, new Uint8Array(1000).fill(i)),
    );
    await Promise.all(work);
    expectThat((await codeOfFailure(disk.flush())) === undefined, 'a flush succeeds');
  },
};
