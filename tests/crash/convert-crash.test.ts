/** A conversion that is cut short leaves nothing that looks complete, and what was there before stays until then. */
import { describe, expect, test } from 'vitest';
import type { CacheMode } from '../../src/core/cache.ts';
import { convert } from '../../src/jobs/convert.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { type CrashScenario, exploreCrashes, SimHost } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { graphOn } from '../support/sim-disks.ts';

const SOURCE = '/source.raw';
const TARGET = '/target.img';
const SIZE = 40 * 4096 + 512;

const CREATE_OPTIONS = { raw: {}, vdi: { 'block-size': 4096 }, qcow2: { cluster_size: 4096 } } as const;
type Format = keyof typeof CREATE_OPTIONS;
const FORMATS: readonly Format[] = ['raw', 'vdi', 'qcow2'];

function content(): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  bytes.set(operationData(1, 30_000), 4096);
  bytes.set(operationData(2, 5000), 100_000);
  bytes.set(operationData(3, 512), SIZE - 512);
  return bytes;
}

function scenario(format: Format, cache: CacheMode, previous: Uint8Array | undefined): CrashScenario {
  const source = content();
  return {
    start() {
      const host = new SimHost({ seed: testSeed, latency: { min: 0, max: 5 } });
      host.put(SOURCE, source);
      if (previous !== undefined) host.put(TARGET, previous);
      return host;
    },
    async workload(host) {
      const graph = graphOn(host);
      await using disk = await graph.open(SOURCE, { format: 'raw' });
      const createOptions = CREATE_OPTIONS[format];
      await convert({ graph, sources: [disk], target: { filename: TARGET, format, cache, createOptions } });
      host.note('converted');
    },
    async check(host, { notes }) {
      if (!host.exists(TARGET)) {
        if (previous !== undefined) throw new Error('what was there before is gone');
        if (notes.length > 0 && cache === 'unsafe') throw new Error('the result is gone');
        return;
      }
      if (previous !== undefined && differsAt(host.contents(TARGET), previous) < 0) return;
      await using disk = await graphOn(host).open(TARGET, { format });
      if (disk.length !== SIZE) throw new Error(`the result is ${disk.length} bytes long`);
      const at = differsAt(await disk.read(0, SIZE), source);
      if (at >= 0) throw new Error(`the result looks complete, but byte ${at} is not the source's`);
    },
  };
}

describe('conversions cut short', () => {
  const previous = new Uint8Array(9000).fill(7);
  const cases = FORMATS.flatMap((format) =>
    [undefined, previous].map((old) => ({ format, old, name: old === undefined ? 'a new file' : 'an existing file' })),
  );

  test.each(cases)('$format to $name, killed anywhere', async ({ format, old }) => {
    // A killed process loses nothing of what it did: the first state of each cut.
    const { cuts } = await exploreCrashes(scenario(format, 'unsafe', old), { statesPerCut: 1 });
    expect(cuts).toBeGreaterThan(5);
  });

  test.each(cases)(
    '$format to $name, the power cut anywhere, with a cache mode that flushes',
    async ({ format, old }) => {
      const statesPerCut = longMode ? 200 : 16;
      const { states } = await exploreCrashes(scenario(format, 'writeback', old), { seed: testSeed, statesPerCut });
      expect(states).toBeGreaterThan(10);
    },
  );

  test.each(cases)('$format to $name, failing anywhere', async ({ format, old }) => {
    const expected = content();
    for (const operation of ['write', 'truncate', 'punchHole', 'open', 'flush', 'close', 'rename', 'read'] as const) {
      for (let skip = 0; skip < 12; skip++) {
        const host = new SimHost({ record: false });
        host.put(SOURCE, expected);
        if (old !== undefined) host.put(TARGET, old);
        const graph = graphOn(host);
        const disk = await graph.open(SOURCE, { format: 'raw' });
        host.faults.inject({ operation, code: 'EIO', skip, times: 1 });
        const createOptions = CREATE_OPTIONS[format];
        const target = { filename: TARGET, format, createOptions, cache: 'writeback' as const };
        const failed = await convert({ graph, sources: [disk], target }).then(
          () => false,
          () => true,
        );
        host.faults.clear();
        await disk.close();
        expect(host.openFiles).toEqual([]);
        const names = await host.files.list('/');
        const where = `${operation} ${skip}`;
        if (failed) {
          expect([where, names]).toEqual([where, old === undefined ? ['source.raw'] : ['source.raw', 'target.img']]);
          if (old !== undefined) expect(differsAt(host.contents(TARGET), old)).toBe(-1);
        } else {
          await using result = await graph.open(TARGET, { format });
          expect([where, differsAt(await result.read(0, SIZE), expected)]).toEqual([where, -1]);
        }
      }
    }
  });

  test.each(FORMATS)('%s, with the cache mode that does not flush: the storage is not waited for', async (format) => {
    for (const cache of ['unsafe', 'writeback'] as const) {
      const host = new SimHost({ record: false });
      host.put(SOURCE, content());
      const graph = graphOn(host);
      await using disk = await graph.open(SOURCE, { format: 'raw' });
      host.faults.inject({ operation: 'flush', code: 'EIO' });
      const target = { filename: TARGET, format, createOptions: CREATE_OPTIONS[format], cache };
      const made = convert({ graph, sources: [disk], target });
      if (cache === 'unsafe') await made;
      else await expect(made).rejects.toMatchObject({ code: 'EIO' });
      expect(host.exists(TARGET)).toBe(cache === 'unsafe');
    }
  });

  test.each(cases)('$format to $name, on a disk that fills up', async ({ format, old }) => {
    for (let pages = 0; pages < 20; pages++) {
      const host = new SimHost({ record: false });
      host.put(SOURCE, content());
      if (old !== undefined) host.put(TARGET, old);
      let used = 0;
      for (const name of await host.files.list('/')) used += (await host.files.stat(`/${name}`)).allocated ?? 0;
      host.capacity = used + pages * 4096;
      const graph = graphOn(host);
      await using disk = await graph.open(SOURCE, { format: 'raw' });
      const createOptions = CREATE_OPTIONS[format];
      const error = await convert({ graph, sources: [disk], target: { filename: TARGET, format, createOptions } }).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      if (error === undefined) continue;
      expect(error).toMatchObject({ code: 'ENOSPC' });
      expect(host.exists(TARGET)).toBe(old !== undefined);
      if (old !== undefined) expect(differsAt(host.contents(TARGET), old)).toBe(-1);
    }
  });
});
