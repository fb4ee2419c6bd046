/** Coding by the event loop and threads, from one list of jobs. */
import { inflateRawSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { differsAt } from '../testing/compare-bytes.ts';
import { operationData } from '../testing/disk-operations.ts';
import { Coding } from './coders.ts';
import { CodingPool } from './coding-pool.ts';
import { loadKoffi } from './koffi.ts';

const missing = process.platform === 'linux' && new CodingPool(loadKoffi()).can(Coding.deflate) ? '' : ': no libz';

/** Bytes that take some time to compress. */
function plain(seed: number, length: number): Uint8Array {
  const bytes = operationData(seed, length);
  for (let i = 0; i < length; i++) bytes[i] = (bytes[i] ?? 0) & 15;
  return bytes;
}

async function expectDeflated(pool: CodingPool, sources: readonly Uint8Array[]): Promise<void> {
  const targets = sources.map(({ length }) => new Uint8Array(length));
  const lengths = await pool.run(Coding.deflate, sources, targets);
  for (const [i, source] of sources.entries()) {
    const stream = targets[i]?.subarray(0, lengths[i]);
    expect(differsAt(inflateRawSync(stream ?? source), source)).toBe(-1);
  }
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 1));
}

describe.skipIf(missing !== '')(`a pool of coders${missing}`, () => {
  test('does little by itself, and starts a thread for much', async () => {
    const pool = new CodingPool(loadKoffi(), { threads: 1 });
    await expectDeflated(pool, [plain(1, 65536), plain(2, 1000)]);
    expect(pool.threads).toBe(0);
    const sources = Array.from({ length: 40 }, (_, i) => plain(i, 65536 - i));
    await expectDeflated(pool, sources);
    expect(pool.threads).toBe(1);
  });

  test('leaves what is long to a thread, which ends when there is no more, and starts another', async () => {
    const pool = new CodingPool(loadKoffi(), { threads: 1, idleMs: 1 });
    for (const seed of [1, 2]) {
      await expectDeflated(pool, [plain(seed, 600_000)]);
      await until(() => pool.threads === 0);
    }
  });

  test('does all by itself without threads, and when they cannot load the libraries', async () => {
    const none = new CodingPool(loadKoffi(), { threads: 0 });
    await expectDeflated(none, [plain(1, 600_000)]);
    const failing = new CodingPool(loadKoffi(), { threads: 1, koffiFiles: ['/nothing/here'] });
    await expectDeflated(failing, [plain(1, 600_000), plain(2, 1000)]);
    await until(() => failing.threads === 0);
    await expectDeflated(failing, [plain(3, 600_000)]);
    expect(failing.threads).toBe(0);
  });

  test('takes more jobs than there are places, and answers each batch', async () => {
    const pool = new CodingPool(loadKoffi(), { threads: 1 });
    const source = plain(7, 300);
    const stream = new Uint8Array(300);
    const [length] = await pool.run(Coding.deflate, [source], [stream]);
    const batches = Array.from({ length: 5 }, (_, i) => 900 + i);
    await Promise.all(
      batches.map(async (count) => {
        const targets = Array.from({ length: count }, (_, i) => new Uint8Array(i % 300));
        const sources = targets.map(() => stream.subarray(0, length));
        expect(await pool.run(Coding.inflate, sources, targets)).toEqual(targets.map((target) => target.length));
        expect(targets.findIndex((target) => differsAt(target, source.subarray(0, target.length)) !== -1)).toBe(-1);
      }),
    );
  });
});
