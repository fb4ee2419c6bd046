/** The request path: what a driver gets to see of requests of any shape. */
import { describe, expect, test } from 'vitest';
import type { Disk, OpenOptions } from '../../src/core/disk.ts';
import type { Limits } from '../../src/core/driver.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { SeededRandom } from '../../src/testing/index.ts';
import { testSeed } from '../set-up/seed.ts';
import { failing, failureOf, gate, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

async function opened(
  length: number,
  change: (storage: Storage) => void = () => {},
  options: OpenOptions = {},
): Promise<{ storage: Storage; disk: Disk }> {
  const storage = new Storage(length);
  change(storage);
  const graph = graphOf([storageProtocol(storage)]);
  return { storage, disk: await graph.open({ driver: 'store' }, { writable: true, ...options }) };
}

const limits = (of: Partial<Limits>) => (storage: Storage) => {
  storage.limits = of;
};

describe('alignment', () => {
  test('an aligned request reaches the driver as it is', async () => {
    const { storage, disk } = await opened(8192, limits({ requestAlign: 512 }));
    await disk.read(512, 1024);
    await disk.write(1024, new Uint8Array(512));
    expect(storage.story).toEqual(['read 512+1024', 'write 1024+512']);
  });

  test('an unaligned read is widened', async () => {
    const { storage, disk } = await opened(8192, limits({ requestAlign: 512 }));
    storage.bytes.set([1, 2, 3, 4], 1000);
    expect([...(await disk.read(1001, 3))]).toEqual([2, 3, 4]);
    expect(storage.story).toEqual(['read 512+512']);
  });

  test('only the ends of a long unaligned read go through a buffer of their own', async () => {
    const { storage, disk } = await opened(65536, limits({ requestAlign: 4096 }));
    storage.bytes.set(operationData(1, 65536));
    expect(differsAt(await disk.read(100, 40000), storage.bytes.slice(100, 40100))).toBe(-1);
    expect(storage.story.sort()).toEqual(['read 0+4096', 'read 36864+4096', 'read 4096+32768']);
  });

  test('an unaligned write reads its ends, merges and writes once', async () => {
    const { storage, disk } = await opened(65536, limits({ requestAlign: 4096 }));
    storage.bytes.fill(7);
    await disk.write(5000, new Uint8Array(10000).fill(1));
    expect(storage.story).toEqual(['read 4096+4096', 'read 12288+4096', 'write 4096+12288']);
    const expected = new Uint8Array(65536).fill(7).fill(1, 5000, 15000);
    expect(differsAt(storage.bytes, expected)).toBe(-1);
  });

  test('a write inside one block reads it once', async () => {
    const { storage, disk } = await opened(8192, limits({ requestAlign: 4096 }));
    await disk.write(10, new Uint8Array(10));
    expect(storage.story).toEqual(['read 0+4096', 'write 0+4096']);
    storage.forget();
    await disk.write(4096, new Uint8Array(100));
    expect(storage.story).toEqual(['read 4096+4096', 'write 4096+4096']);
  });

  test.each([1, 512, 4096])('any request does what it says, with an alignment of %d', async (requestAlign) => {
    const random = new SeededRandom(testSeed + requestAlign);
    const { storage, disk } = await opened(32768, (store) => {
      store.limits = { requestAlign, transferMax: requestAlign * 3 };
    });
    const model = new Uint8Array(32768);
    for (let i = 0; i < 400; i++) {
      const offset = random.below(32768);
      const length = random.between(0, 32768 - offset);
      if (random.chance(0.5)) {
        const data = operationData(i + 1, length);
        await disk.write(offset, data);
        model.set(data, offset);
      } else expect(differsAt(await disk.read(offset, length), model.subarray(offset, offset + length))).toBe(-1);
    }
    expect(differsAt(storage.bytes, model)).toBe(-1);
    const misshapen = storage.calls.filter(
      ({ offset = 0, length = 0 }) =>
        offset % requestAlign !== 0 || length % requestAlign !== 0 || length === 0 || length > requestAlign * 3,
    );
    expect(misshapen).toEqual([]);
  });

  test('BL-SIZE-7: an alignment above 1 GiB is refused', async () => {
    expect(await failureOf(opened(4096, limits({ requestAlign: 2 ** 31 })))).toEqual({
      code: 'EINVAL',
      message: 'Driver requires too large request alignment',
    });
  });

  test('without constraints the driver gets single bytes', async () => {
    const { storage, disk } = await opened(100);
    await disk.write(33, new Uint8Array(1));
    await disk.read(99, 1);
    expect(storage.story).toEqual(['write 33+1', 'read 99+1']);
  });
});

describe('splitting', () => {
  test('requests are cut at the longest transfer', async () => {
    const { storage, disk } = await opened(10000, limits({ transferMax: 4096 }));
    await disk.read(0, 10000);
    await disk.write(100, new Uint8Array(5000));
    expect(storage.story).toEqual([
      'read 0+4096',
      'read 4096+4096',
      'read 8192+1808',
      'write 100+4096',
      'write 4196+904',
    ]);
  });

  test('a longest transfer that is not aligned is rounded down', async () => {
    const { storage, disk } = await opened(8192, limits({ transferMax: 1500, requestAlign: 512 }));
    await disk.read(0, 2048);
    expect(storage.story).toEqual(['read 0+1024', 'read 1024+1024']);
  });

  test('zero writes and discards are cut at theirs', async () => {
    const { storage, disk } = await opened(16384, limits({ zeroMax: 8192, discardMax: 6000, discardAlign: 512 }));
    await disk.writeZeroes(0, 16384);
    await disk.discard(0, 16384);
    expect(storage.story).toEqual([
      'zero 0+8192',
      'zero 8192+8192',
      'discard 0+5632',
      'discard 5632+5632',
      'discard 11264+5120',
    ]);
  });
});

describe('bounds', () => {
  test('a disk refuses what reaches past its end, and the driver is not asked', async () => {
    const { storage, disk } = await opened(1000);
    for (const request of [
      disk.read(999, 2),
      disk.write(1000, new Uint8Array(1)),
      disk.writeZeroes(0, 1001),
      disk.discard(1001, 0),
      disk.status(0, 2000),
    ]) {
      expect((await failureOf(request)).code).toBe('EIO');
    }
    expect(storage.story).toEqual([]);
  });

  test('offsets beyond the safe integers and fractions are mistakes of the caller', async () => {
    const { disk } = await opened(1000);
    await expect(disk.read(2 ** 53, 1)).rejects.toThrow(RangeError);
    await expect(disk.read(0.5, 1)).rejects.toThrow(RangeError);
    await expect(disk.write(-1, new Uint8Array(1))).rejects.toThrow(RangeError);
  });

  test('BL-OPEN-18: a format reading past the end of its file gets zeroes', async () => {
    const storage = new Storage(700);
    storage.bytes.fill(5);
    const long = { ...plainFormat, name: 'long', open: longFormat };
    const graph = graphOf([storageProtocol(storage), long]);
    const disk = await graph.open({ driver: 'long', file: { driver: 'store' } });
    const found = await disk.read(600, new Uint8Array(300).fill(9));
    expect(found.subarray(0, 100).every((byte) => byte === 5)).toBe(true);
    expect(found.subarray(100).every((byte) => byte === 0)).toBe(true);
    expect((await disk.read(900, new Uint8Array(100).fill(9))).every((byte) => byte === 0)).toBe(true);
    expect(storage.story).toEqual(['read 600+100']);
  });

  test('a write past the end of a file makes it longer, unless it cannot grow', async () => {
    const storage = new Storage(100);
    const long = { ...plainFormat, name: 'long', open: longFormat };
    const disk = await graphOf([storageProtocol(storage), long]).open(
      { driver: 'long', file: { driver: 'store' } },
      { writable: true },
    );
    await disk.write(500, new Uint8Array(10).fill(1));
    expect(storage.bytes.length).toBe(510);
    const fixed = new Storage(100);
    fixed.growable = false;
    const other = await graphOf([storageProtocol(fixed), long]).open(
      { driver: 'long', file: { driver: 'store' } },
      { writable: true },
    );
    expect((await failureOf(other.write(500, new Uint8Array(10)))).code).toBe('ENOSPC');
  });
});

/** A format of 1000 bytes, however long its file is. */
const longFormat: typeof plainFormat.open = async (context) => ({
  ...(await plainFormat.open(context)),
  length: () => 1000,
});

describe('zero writes', () => {
  test('go to the driver, with unmap where it is asked for', async () => {
    const { storage, disk } = await opened(8192);
    await disk.writeZeroes(100, 200, { unmap: true });
    await disk.writeZeroes(100, 200);
    expect(storage.story).toEqual(['zero 100+200 unmap', 'zero 100+200']);
  });

  test('edges that the driver cannot zero are written as data', async () => {
    const { storage, disk } = await opened(65536, limits({ zeroAlign: 4096 }));
    storage.bytes.fill(9);
    await disk.writeZeroes(5000, 20000);
    expect(storage.story).toEqual(['write 5000+3192', 'zero 8192+16384', 'write 24576+424']);
    expect(differsAt(storage.bytes, new Uint8Array(65536).fill(9).fill(0, 5000, 25000))).toBe(-1);
  });

  test('a request within one block is data only', async () => {
    const { storage, disk } = await opened(65536, limits({ zeroAlign: 4096 }));
    await disk.writeZeroes(5000, 100);
    expect(storage.story).toEqual(['write 5000+100']);
  });

  test('are data where the driver has none, or says ENOTSUP for this one', async () => {
    const without = await opened(8192, (storage) => storage.without.push('writeZeroes'));
    without.storage.bytes.fill(1);
    await without.disk.writeZeroes(0, 8192);
    expect(without.storage.story).toEqual(['write 0+8192']);
    const refusing = await opened(8192, (storage) => {
      storage.before = ({ kind }) => (kind === 'zero' ? failing('ENOTSUP')() : undefined);
    });
    await refusing.disk.writeZeroes(0, 8192);
    expect(refusing.storage.story).toEqual(['zero 0+8192', 'write 0+8192']);
  });

  test('without fallback, ENOTSUP is the answer and nothing is written', async () => {
    const without = await opened(8192, (storage) => storage.without.push('writeZeroes'));
    expect((await failureOf(without.disk.writeZeroes(0, 8192, { noFallback: true }))).code).toBe('ENOTSUP');
    const unaligned = await opened(8192, limits({ zeroAlign: 4096 }));
    expect((await failureOf(unaligned.disk.writeZeroes(0, 100, { noFallback: true }))).code).toBe('ENOTSUP');
    expect([...without.storage.story, ...unaligned.storage.story]).toEqual([]);
    const refusing = await opened(8192, (storage) => {
      storage.before = ({ kind }) => (kind === 'zero' ? failing('ENOTSUP')() : undefined);
    });
    expect((await failureOf(refusing.disk.writeZeroes(0, 8192, { noFallback: true }))).code).toBe('ENOTSUP');
    expect(refusing.storage.story).toEqual(['zero 0+8192']);
  });

  test('another error is no reason to write data', async () => {
    const { storage, disk } = await opened(8192, (store) => {
      store.before = ({ kind }) => (kind === 'zero' ? failing('ENOSPC')() : undefined);
    });
    expect((await failureOf(disk.writeZeroes(0, 8192))).code).toBe('ENOSPC');
    expect(storage.story).toEqual(['zero 0+8192']);
  });

  test('the end of the disk counts as aligned', async () => {
    const { storage, disk } = await opened(10000, limits({ zeroAlign: 4096, discardAlign: 4096 }));
    await disk.writeZeroes(4096, 10000 - 4096);
    await disk.discard(4096, 10000 - 4096);
    expect(storage.story).toEqual(['zero 4096+5904', 'discard 4096+5904']);
  });

  test('detect-zeroes makes them from data, and unmaps when told to', async () => {
    const on = await opened(8192, () => {}, { detectZeroes: 'on' });
    await on.disk.write(0, new Uint8Array(4096));
    await on.disk.write(0, new Uint8Array(4096).fill(1, 4095));
    expect(on.storage.story).toEqual(['zero 0+4096', 'write 0+4096']);
    const unmap = await opened(8192, () => {}, { detectZeroes: 'unmap' });
    await unmap.disk.write(0, new Uint8Array(4096));
    expect(unmap.storage.story).toEqual(['zero 0+4096 unmap']);
  });
});

describe('discards', () => {
  test('are cut to what the driver can, never rounded outwards', async () => {
    const { storage, disk } = await opened(65536, limits({ discardAlign: 4096 }));
    await disk.discard(5000, 20000);
    await disk.discard(5000, 3000);
    expect(storage.story).toEqual(['discard 8192+16384']);
  });

  test('are hints: a driver that cannot is no error, another error is', async () => {
    const without = await opened(8192, (storage) => storage.without.push('discard'));
    await without.disk.discard(0, 8192);
    const refusing = await opened(8192, (storage) => {
      storage.before = failing('ENOTSUP');
    });
    await refusing.disk.discard(0, 8192);
    const broken = await opened(8192, (storage) => {
      storage.before = ({ kind }) => (kind === 'discard' ? failing('EIO')() : undefined);
    });
    expect((await failureOf(broken.disk.discard(0, 8192))).code).toBe('EIO');
  });

  test('do not happen when the mode is ignore (BL-OPEN-26)', async () => {
    const { storage, disk } = await opened(8192, () => {}, { discard: 'ignore' });
    await disk.discard(0, 8192);
    expect(storage.story).toEqual([]);
  });
});

describe('durability', () => {
  test('a forced write is followed by a flush', async () => {
    const { storage, disk } = await opened(8192);
    await disk.write(0, new Uint8Array(512), { fua: true });
    await disk.writeZeroes(0, 512, { fua: true });
    expect(storage.story).toEqual(['write 0+512', 'flush', 'zero 0+512', 'flush']);
  });

  test('BL-OPEN-25: writethrough and directsync flush after every write, writeback only when asked', async () => {
    for (const [cache, flushes] of [
      ['writethrough', 3],
      ['directsync', 3],
      ['writeback', 1],
      ['none', 1],
      ['off', 1],
      ['unsafe', 0],
    ] as const) {
      const { storage, disk } = await opened(8192, () => {}, { cache });
      await disk.write(0, new Uint8Array(512));
      await disk.write(512, new Uint8Array(512));
      await disk.writeZeroes(0, 512);
      await disk.flush();
      expect([cache, storage.story.filter((line) => line === 'flush').length]).toEqual([cache, flushes]);
    }
  });

  test('a protocol is not flushed when nothing was written since', async () => {
    const { storage, disk } = await opened(8192);
    await disk.flush();
    expect(storage.story).toEqual([]);
    await disk.write(0, new Uint8Array(1));
    await disk.flush();
    await disk.flush();
    expect(storage.story).toEqual(['write 0+1', 'flush']);
  });

  test('a flush that failed is tried again', async () => {
    const { storage, disk } = await opened(8192);
    await disk.write(0, new Uint8Array(1));
    storage.before = failing('EIO');
    expect((await failureOf(disk.flush())).code).toBe('EIO');
    storage.before = () => {};
    storage.forget();
    await disk.flush();
    expect(storage.story).toEqual(['flush']);
  });

  test('a write that ends while a flush is under way is not counted as flushed', async () => {
    const { storage, disk } = await opened(8192);
    await disk.write(0, new Uint8Array(1));
    const hold = gate();
    storage.before = ({ kind }) => (kind === 'flush' ? hold.wait() : undefined);
    const flushing = disk.flush();
    await disk.write(1, new Uint8Array(1));
    hold.open();
    await flushing;
    storage.before = () => {};
    storage.forget();
    await disk.flush();
    expect(storage.story).toEqual(['flush']);
  });

  test('a format without a flush of its own has its file flushed', async () => {
    const storage = new Storage(8192);
    const disk = await graphOf([storageProtocol(storage), plainFormat]).open(
      { driver: 'plain', file: { driver: 'store' } },
      { writable: true },
    );
    await disk.write(0, new Uint8Array(512));
    await disk.flush();
    expect(storage.story).toEqual(['write 0+512', 'flush']);
  });

  test('closing flushes (BL-CLOSE-2)', async () => {
    const { storage, disk } = await opened(8192);
    await disk.write(0, new Uint8Array(512));
    await disk.close();
    expect(storage.story).toEqual(['write 0+512', 'flush', 'close']);
  });
});

describe('the way that does not wait', () => {
  const now = (storage: Storage) => {
    storage.without = ['status'];
  };

  test('is taken for aligned requests inside the disk', async () => {
    const { storage, disk } = await opened(8192, now);
    storage.limits = {};
    expect(disk.tryWriteNow(512, new Uint8Array(512).fill(3))).toBe(true);
    const target = new Uint8Array(512);
    expect(disk.tryReadNow(512, target)).toBe(true);
    expect(target[0]).toBe(3);
    expect(disk.tryReadNow(8000, target)).toBe(false);
    expect(disk.tryWriteNow(8000, target)).toBe(false);
    expect(storage.story).toEqual(['writeNow 512+512', 'readNow 512+512']);
  });

  test('is not taken when unaligned, too long, or in a mode that must do more', async () => {
    const aligned = await opened(8192, (storage) => {
      now(storage);
      storage.limits = { requestAlign: 512, transferMax: 1024 };
    });
    expect(aligned.disk.tryReadNow(1, new Uint8Array(512))).toBe(false);
    expect(aligned.disk.tryWriteNow(0, new Uint8Array(100))).toBe(false);
    expect(aligned.disk.tryReadNow(0, new Uint8Array(2048))).toBe(false);
    const through = await opened(8192, now, { cache: 'writethrough' });
    expect(through.disk.tryWriteNow(0, new Uint8Array(512))).toBe(false);
    const detecting = await opened(8192, now, { detectZeroes: 'on' });
    expect(detecting.disk.tryWriteNow(0, new Uint8Array(512))).toBe(false);
    const reading = await opened(8192, now, { writable: false });
    expect(reading.disk.tryWriteNow(0, new Uint8Array(512))).toBe(false);
  });

  test('is refused beside overlapping requests, and while draining', async () => {
    const { storage, disk } = await opened(8192, now);
    const hold = gate();
    storage.before = hold.wait;
    const zeroing = disk.writeZeroes(0, 512);
    await Promise.resolve();
    expect(disk.tryReadNow(256, new Uint8Array(512))).toBe(false);
    expect(disk.tryWriteNow(256, new Uint8Array(512))).toBe(false);
    expect(disk.tryReadNow(512, new Uint8Array(512))).toBe(true);
    hold.open();
    await zeroing;
    expect(disk.tryReadNow(256, new Uint8Array(512))).toBe(true);
    const drain = await disk.graph.drain(disk.node);
    expect(disk.tryReadNow(256, new Uint8Array(512))).toBe(false);
    expect(disk.tryWriteNow(256, new Uint8Array(512))).toBe(false);
    drain.end();
    expect(disk.tryReadNow(256, new Uint8Array(512))).toBe(true);
  });

  test('is not taken for writes that must be durable', async () => {
    const { storage, disk } = await opened(8192, now);
    await disk.write(0, new Uint8Array(512), { fua: true });
    expect(storage.story).toEqual(['write 0+512', 'flush']);
    const through = await opened(8192, now, { cache: 'writethrough' });
    await through.disk.write(0, new Uint8Array(512));
    expect(through.storage.story).toEqual(['write 0+512', 'flush']);
  });

  test('a flush covers what was written at once', async () => {
    const { storage, disk } = await opened(8192, now);
    expect(disk.tryWriteNow(0, new Uint8Array(512))).toBe(true);
    await disk.flush();
    expect(storage.story).toEqual(['writeNow 0+512', 'flush']);
  });
});
