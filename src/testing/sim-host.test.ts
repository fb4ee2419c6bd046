import { describe, expect, test } from 'vitest';
import type { HostFile } from '../core/host.ts';
import { SimHost, type SimHostOptions } from './sim-host.ts';
import { SimBudgetError } from './sim-world.ts';

const WRITE = { write: true, create: 'truncate' } as const;

async function made(options: SimHostOptions = {}): Promise<{ host: SimHost; file: HostFile }> {
  const host = new SimHost(options);
  return { host, file: await host.files.open('/d/a', WRITE) };
}

function bytes(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

async function codeOf(promise: Promise<unknown>): Promise<unknown> {
  return await promise.then(
    () => 'none',
    (error: { code?: unknown }) => error.code,
  );
}

describe('files', () => {
  test('hold what is written, and short reads mean the end', async () => {
    const { host, file } = await made();
    await file.write(3, bytes(2, 7));
    const target = bytes(8, 0xee);
    expect(await file.read(1, target)).toBe(4);
    expect([...target]).toEqual([0, 0, 7, 7, 0xee, 0xee, 0xee, 0xee]);
    expect([...host.contents('/d/a')]).toEqual([0, 0, 0, 7, 7]);
    expect(await file.read(9, target)).toBe(0);
  });

  test('fail as the system does', async () => {
    const host = new SimHost();
    host.put('/d/a', bytes(10, 1), { readOnly: true });
    const { files } = host;
    expect(await codeOf(files.open('/d/none', { write: false }))).toBe('ENOENT');
    expect(await codeOf(files.open('/d', { write: false }))).toBe('EISDIR');
    expect(await codeOf(files.open('/d/a', { write: true }))).toBe('EACCES');
    expect(await codeOf(files.open('/d/a', { write: false, create: 'new' }))).toBe('EEXIST');
    const file = await files.open('/d/a', { write: false });
    expect(await codeOf(file.write(0, bytes(1, 1)))).toBe('EBADF');
    host.link('/l1', '/l2');
    host.link('/l2', 'l1');
    expect(await codeOf(files.resolve('/l1'))).toBe('ELOOP');
  });

  test('names: rename replaces, remove leaves open files alone, lists are sorted, links are followed', async () => {
    const { host, file } = await made();
    await file.write(0, bytes(1, 1));
    const other = await host.files.open('/d/b', WRITE);
    await other.write(0, bytes(1, 2));
    host.link('/d/z', 'b');
    expect(await host.files.list('/d')).toEqual(['a', 'b', 'z']);
    expect((await host.files.stat('/d/z')).identity).toBe((await host.files.stat('/d/./b')).identity);
    await host.files.rename('/d/b', '/d/a');
    expect([...host.contents('/d/a')]).toEqual([2]);
    const target = bytes(1, 0);
    expect(await file.read(0, target)).toBe(1);
    expect(target[0]).toBe(1);
    await host.files.remove('/d/a');
    expect(host.exists('/d/a')).toBe(false);
    expect(await other.read(0, target)).toBe(1);
  });

  test('locks are per open file, upgrade, split and go with closing', async () => {
    const { host, file } = await made();
    const other = await host.files.open('/d/a', { write: true });
    expect(file.lock('shared', 100, 10)).toBe(true);
    expect(other.lock('shared', 105, 1)).toBe(true);
    expect(other.lock('exclusive', 104, 1)).toBe(false);
    expect(file.lock('exclusive', 105, 1)).toBe(false);
    expect(file.lock('none', 103, 3)).toBe(true);
    expect(other.lock('exclusive', 103, 3)).toBe(true);
    expect(other.isLocked('shared', 103, 3)).toBe(false);
    expect(file.isLocked('shared', 103, 3)).toBe(true);
    expect(other.isLocked('exclusive', 106, 1)).toBe(true);
    await file.close();
    expect(other.isLocked('exclusive', 0, 0)).toBe(false);
    expect(host.openFiles).toEqual(['/d/a']);
  });

  test('space runs out in whole pages, and the part that fits is written', async () => {
    const { host, file } = await made({ capacity: 3 * 4096 });
    expect(await codeOf(file.write(100, bytes(4 * 4096, 5)))).toBe('ENOSPC');
    expect(host.contents('/d/a').length).toBe(3 * 4096);
    expect(file.tryWriteNow(3 * 4096, bytes(1, 1))).toBe(false);
    expect(await codeOf(file.allocate(0, 5 * 4096))).toBe('ENOSPC');
    host.capacity = 4 * 4096;
    await file.write(3 * 4096, bytes(1, 1));
  });

  test('faults strike the requests they name, so many times', async () => {
    const { host, file } = await made();
    await file.write(0, bytes(100, 1));
    host.faults.inject({ operation: 'read', code: 'EIO', offset: 50, length: 10, skip: 1, times: 1 });
    const target = bytes(20, 0);
    expect(file.tryReadNow(45, target)).toBe(-1);
    expect(file.tryReadNow(0, target)).toBe(20);
    expect(await codeOf(file.read(45, target))).toBe('none');
    expect(await codeOf(file.read(60, target))).toBe('none');
    expect(await codeOf(file.read(45, target))).toBe('EIO');
    expect(await codeOf(file.read(45, target))).toBe('none');
  });

  test('a missing feature is ENOTSUP', async () => {
    const { file } = await made({ missing: ['punchHole', 'extent', 'lock'] });
    await file.truncate(10_000);
    expect(await codeOf(file.punchHole(0, 10))).toBe('ENOTSUP');
    expect(file.extent(0, 100)).toEqual({ kind: 'data', length: 100 });
    expect(() => file.lock('shared', 0, 1)).toThrow('not supported');
  });

  test('direct requests must be aligned', async () => {
    const host = new SimHost({ directAlign: 512 });
    host.put('/a', 4096);
    const file = await host.files.open('/a', { write: true, direct: true });
    expect(file.requestAlign).toBe(512);
    expect(await codeOf(file.read(1, bytes(512, 0)))).toBe('EINVAL');
    expect(file.tryReadNow(0, bytes(10, 0))).toBe(-1);
    await file.write(512, bytes(1024, 1));
  });

  test('a budget ends what would go on for ever', async () => {
    const { file } = await made({ operationBudget: 10 });
    const forever = async () => {
      for (;;) await file.read(0, bytes(1, 0));
    };
    await expect(forever()).rejects.toThrow(SimBudgetError);
  });
});

describe('time', () => {
  test('moves only from event to event, in order, and an abort ends a sleep', async () => {
    const host = new SimHost();
    const seen: number[] = [];
    const sleep = async (ms: number) => {
      await host.clock.sleep(ms);
      seen.push(host.clock.now());
    };
    await Promise.all([sleep(3_600_000), sleep(5), sleep(5), sleep(1)]);
    expect(seen).toEqual([1, 5, 5, 3_600_000]);
    const aborter = new AbortController();
    const sleeping = host.clock.sleep(10, aborter.signal);
    aborter.abort(new Error('enough'));
    await expect(sleeping).rejects.toThrow('enough');
    await expect(host.clock.sleep(10, aborter.signal)).rejects.toThrow('enough');
    expect(host.clock.now()).toBe(3_600_000);
  });

  test('latency from a seed puts requests in an order of its own, always the same', async () => {
    const order = async (seed: number) => {
      const { file } = await made({ seed, latency: { min: 1, max: 9 } });
      const done: number[] = [];
      await Promise.all(
        Array.from({ length: 8 }, async (_, i) => {
          await file.write(i, bytes(1, i));
          done.push(i);
        }),
      );
      return done.join('');
    };
    expect(await order(1)).toBe(await order(1));
    expect(new Set([await order(1), await order(2), await order(3)]).size).toBeGreaterThan(1);
  });
});

describe('crashes', () => {
  test('what was flushed survives every crash', async () => {
    for (let seed = 0; seed < 50; seed++) {
      const { host, file } = await made();
      await file.write(0, bytes(2000, 1));
      await file.flush();
      await file.write(500, bytes(2000, 2));
      const after = host.crash(seed).contents('/d/a');
      expect(after.subarray(0, 500).every((byte) => byte === 1)).toBe(true);
      expect(after.subarray(500, 2000).every((byte) => byte === 1 || byte === 2)).toBe(true);
      expect(await codeOf(file.read(0, bytes(1, 0)))).toBe('EIO');
    }
  });

  test('what was not flushed is kept, lost or torn by sector', async () => {
    const outcomes = new Set<string>();
    for (let seed = 0; seed < 200; seed++) {
      const host = new SimHost();
      host.put('/a', bytes(2048, 1));
      const file = await host.files.open('/a', { write: true });
      await file.write(0, bytes(2048, 2));
      const after = host.crash(seed).contents('/a');
      for (let sector = 0; sector < 4; sector++) {
        expect(new Set(after.slice(sector * 512, sector * 512 + 512)).size).toBe(1);
      }
      outcomes.add([0, 512, 1024, 1536].map((at) => after[at]).join(''));
    }
    expect(outcomes).toContain('1111');
    expect(outcomes).toContain('2222');
    expect(outcomes.size).toBeGreaterThan(8);
  });

  test('a write that came after the flush began is not covered by it', async () => {
    const outcomes = new Set<number>();
    for (let seed = 0; seed < 40; seed++) {
      const { host, file } = await made();
      await file.write(0, bytes(1, 1));
      await Promise.all([file.flush(), file.write(1, bytes(1, 2))]);
      outcomes.add(host.crash(seed).contents('/d/a').length);
    }
    expect([...outcomes].sort()).toEqual([1, 2]);
  });

  test('names change in order, and any flush makes the changes before it durable', async () => {
    const outcomes = new Set<string>();
    for (let seed = 0; seed < 60; seed++) {
      const { host, file } = await made();
      await file.flush();
      await host.files.rename('/d/a', '/d/b');
      await host.files.rename('/d/b', '/d/c');
      const after = host.crash(seed);
      outcomes.add(['a', 'b', 'c'].filter((name) => after.exists(`/d/${name}`)).join());
    }
    expect([...outcomes].sort()).toEqual(['a', 'b', 'c']);
  });

  test('the same seed leaves the same', async () => {
    const once = async () => {
      const { host, file } = await made();
      for (let i = 0; i < 20; i++) await file.write(i * 700, bytes(1500, i + 1));
      return host.crash(9).contents('/d/a');
    };
    expect(await once()).toEqual(await once());
  });
});
