import fs from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { build } from '../../scripts/build.mjs';
import { Graph } from '../core/graph.ts';
import type { Host } from '../core/host.ts';
import type { BulkLanes } from '../core/host-bulk.ts';
import type { OptionTree } from '../core/options.ts';
import { DRIVERS } from '../drivers.ts';
import { type Comparison, compare } from '../jobs/compare.ts';
import { type ConvertOptions, convert } from '../jobs/convert.ts';
import { bulkLanes } from './bulk.ts';
import { nodeHost } from './host.ts';

const MIB = 1024 * 1024;
const SIZE = 160 * MIB + 512;

let folder = '';
const at = (name: string) => path.join(folder, name);

beforeAll(async () => {
  await build();
  folder = fs.mkdtempSync(path.join(tmpdir(), 'diskwright-'));
  makeSource(at('source.raw'));
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** 160 MiB: bytes in every MiB but each eighth, with zeroes of all lengths among them, and two blocks of zeroes that are stored. */
function makeSource(name: string): void {
  const file = fs.openSync(name, 'w');
  fs.ftruncateSync(file, SIZE);
  for (let index = 0; index < 160; index++) {
    if (index % 8 === 7) continue;
    const bytes = Buffer.alloc(MIB, index === 42 || index === 43 ? 0 : (index % 255) + 1);
    bytes.fill(0, (index * 5000) % 700_000, ((index * 5000) % 700_000) + index * 700);
    fs.writeSync(file, bytes, 0, index % 16 === 3 ? MIB / 2 : MIB, index * MIB);
  }
  fs.closeSync(file);
}

interface Watched {
  readonly graph: Graph;
  /** Pieces that lanes have done. */
  done: number;
}

/** A graph on this machine whose random bytes are all alike, so that images made the same way are too. */
function watchedGraph(lanes: boolean): Watched {
  const watched = { done: 0 };
  const count = async (work: Promise<number>) => {
    const done = await work;
    watched.done += done;
    return done;
  };
  const make = (): BulkLanes | undefined => {
    const own = bulkLanes();
    return (
      own && {
        reaches: (file) => own.reaches(file),
        numbers: (count) => own.numbers(count),
        copy: (work, watch) => count(own.copy(work, watch)),
        compare: (pieces, watch) => count(own.compare(pieces, watch)),
        close: () => own.close(),
      }
    );
  };
  const { bulkLanes: _lanes, ...rest } = nodeHost();
  const host: Host = { ...rest, random: (target) => target.fill(7), ...(lanes && { bulkLanes: make }) };
  return Object.assign(watched, { graph: new Graph({ host, drivers: DRIVERS }) });
}

type Formats = readonly [from: string, to: string];

/** Converts with lanes or without, and tells how many pieces lanes did. */
async function converted(
  source: string,
  target: string,
  [from, to]: Formats,
  lanes: boolean,
  more: Partial<ConvertOptions> & { readonly spoil?: () => void } = {},
): Promise<number> {
  const watched = watchedGraph(lanes);
  const { graph } = watched;
  const disk = await graph.open(source, { format: from });
  more.spoil?.();
  try {
    await convert({ graph, sources: [disk], target: { filename: target, format: to }, ...more });
  } finally {
    await disk.close();
  }
  return watched.done;
}

/** Blocks of 512 bytes that a file system may need for its own list of where the parts of a file are. */
const EXTENT_BLOCKS = 64;

function expectSameFile(a: string, b: string): void {
  expect(Math.abs(fs.statSync(a).blocks - fs.statSync(b).blocks)).toBeLessThanOrEqual(EXTENT_BLOCKS);
  expect(fs.readFileSync(a).equals(fs.readFileSync(b))).toBe(true);
}

describe('copies', () => {
  test.each<Formats>([
    ['raw', 'vdi'],
    ['vdi', 'raw'],
    ['vdi', 'vdi'],
    ['raw', 'raw'],
  ])('of %s to %s are the same as those of the request path, storage included', async (from, to) => {
    if (from === 'vdi') await converted(at('source.raw'), at('source.vdi'), ['raw', 'vdi'], false);
    await converted(at(`source.${from}`), at('plain'), [from, to], false);
    expect(await converted(at(`source.${from}`), at('bulk'), [from, to], true)).toBeGreaterThan(60);
    expectSameFile(at('bulk'), at('plain'));
  });

  /** Clusters lie in another order, since tables are made after the data that they map. */
  test.each<readonly [OptionTree, Formats]>([
    [{}, ['raw', 'qcow2']],
    [{ cluster_size: 4096, refcount_bits: 1 }, ['raw', 'qcow2']],
    [{ extended_l2: true, lazy_refcounts: true }, ['raw', 'qcow2']],
    [{}, ['qcow2', 'qcow2']],
    [{}, ['qcow2', 'raw']],
  ])('with %j, %j, hold the same, and an image is sound', async (createOptions, [from, to]) => {
    if (from === 'qcow2') await converted(at('source.raw'), at('source.qcow2'), ['raw', 'qcow2'], false);
    const target = { filename: at('bulk'), format: to, createOptions };
    expect(await converted(at(`source.${from}`), '', [from, to], true, { target })).toBeGreaterThan(60);
    const { graph } = watchedGraph(false);
    const [source, copy] = [
      await graph.open(at('source.raw'), { format: 'raw' }),
      await graph.open(at('bulk'), { format: to }),
    ];
    expect(await compare(source, copy)).toEqual({ kind: 'identical' });
    if (to === 'qcow2') {
      const report = await copy.check({ repair: 'none', finding: () => {} });
      expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    }
    await Promise.all([source.close(), copy.close()]);
    if (Object.keys(createOptions).length > 0 || from !== 'raw') return;
    // No more storage than the request path takes, but for a block of counts.
    await converted(at(`source.${from}`), '', [from, to], false, { target: { ...target, filename: at('plain') } });
    expect(fs.statSync(at('bulk')).blocks).toBeLessThanOrEqual(fs.statSync(at('plain')).blocks + 4096);
  });

  test.each([512, 65536, 3 * MIB])('leave out zeroes of %i bytes as the request path does', async (sparseSize) => {
    for (const to of ['raw', 'vdi']) {
      await converted(at('source.raw'), at('plain'), ['raw', to], false, { sparseSize });
      await converted(at('source.raw'), at('bulk'), ['raw', to], true, { sparseSize });
      expectSameFile(at('bulk'), at('plain'));
    }
  });

  test('of a source that is cut short meanwhile end as those of the request path', async () => {
    for (const [lanes, target] of [
      [false, 'plain'],
      [true, 'bulk'],
    ] as const) {
      fs.copyFileSync(at('source.raw'), at('cut.raw'));
      const spoil = () => fs.truncateSync(at('cut.raw'), 100 * MIB + 300);
      await converted(at('cut.raw'), at(target), ['raw', 'vdi'], lanes, { spoil });
    }
    expectSameFile(at('bulk'), at('plain'));
  });

  test('stop when they are told to, and leave nothing', async () => {
    const controller = new AbortController();
    const progress = (done: number) => {
      if (done > 0) controller.abort(new Error('enough'));
    };
    const options = { progress, signal: controller.signal };
    await expect(converted(at('source.raw'), at('aborted'), ['raw', 'vdi'], true, options)).rejects.toThrow('enough');
    expect(fs.readdirSync(folder).filter((name) => name.includes('aborted'))).toEqual([]);
  });

  test('tell their progress, to the end', async () => {
    const told: number[] = [];
    await converted(at('source.raw'), at('bulk'), ['raw', 'raw'], true, {
      progress: (done, total) => told.push(done / total),
    });
    expect(told.length).toBeGreaterThan(10);
    expect(told).toEqual([...told].sort((a, b) => a - b));
    expect(told.at(-1)).toBe(1);
  });

  test('leave to the request path what was asked of it', async () => {
    const source = at('source.raw');
    expect(await converted(source, at('bulk'), ['raw', 'raw'], true, { salvage: true })).toBe(0);
    expect(await converted(source, at('bulk'), ['raw', 'raw'], true, { rateLimit: 2 ** 33 })).toBe(0);
    expect(await converted(source, at('bulk'), ['raw', 'raw'], true, { sparseSize: 0 })).toBe(0);
  });

  test('past the limit of a file are told as the request path tells them', async () => {
    const full = { filename: '/dev/full', format: 'raw' };
    const failure = (lanes: boolean) =>
      converted(at('source.raw'), '', ['raw', 'raw'], lanes, { target: full }).catch((error: Error) => error.message);
    expect(await failure(true)).toBe(await failure(false));
  });
});

describe('comparisons', () => {
  async function compared(a: string, b: string, format: string, lanes: boolean): Promise<[Comparison, number]> {
    const watched = watchedGraph(lanes);
    const first = await watched.graph.open(a, { format: 'raw' });
    const second = await watched.graph.open(b, { format });
    try {
      return [await compare(first, second), watched.done];
    } finally {
      await first.close();
      await second.close();
    }
  }

  test('of a disk with its copy find them equal', async () => {
    await converted(at('source.raw'), at('copy.vdi'), ['raw', 'vdi'], true);
    const [found, done] = await compared(at('source.raw'), at('copy.vdi'), 'vdi', true);
    expect(found).toEqual({ kind: 'identical' });
    expect(done).toBeGreaterThan(60);
  });

  test.each([0, 77 * MIB + 5000, 42 * MIB, 159 * MIB - 1])(
    'find the first of two differences, at %i',
    async (place) => {
      fs.copyFileSync(at('source.raw'), at('other.raw'), fs.constants.COPYFILE_FICLONE);
      const file = fs.openSync(at('other.raw'), 'r+');
      for (const offset of [place, SIZE - 1]) fs.writeSync(file, Buffer.of(0xff), 0, 1, offset);
      fs.closeSync(file);
      const [found] = await compared(at('source.raw'), at('other.raw'), 'raw', true);
      expect(found).toEqual({ kind: 'content', offset: place - (place % 512) });
      expect(found).toEqual((await compared(at('source.raw'), at('other.raw'), 'raw', false))[0]);
    },
  );
});

/** Of 16 KiB each, in every other 16 KiB: more than are handed over at a time. */
const RUNS = 4200;

describe('files in more pieces than lanes are given at a time', () => {
  const run = 16 * 1024;
  const name = () => at('runs.raw');
  beforeAll(() => {
    const file = fs.openSync(name(), 'w');
    fs.ftruncateSync(file, 2 * RUNS * run);
    const bytes = Buffer.alloc(run);
    for (let index = 0; index < RUNS; index++)
      fs.writeSync(file, bytes.fill((index % 255) + 1), 0, run, 2 * index * run);
    fs.closeSync(file);
  });

  test.each(['raw', 'vdi', 'qcow2'])('are copied to %s whole, and compare equal up to the last byte', async (to) => {
    const copied = await converted(name(), at('bulk'), ['raw', to], true);
    expect(copied).toBe(RUNS);
    const watched = watchedGraph(true);
    const { graph } = watched;
    const [source, copy] = [
      await graph.open(name(), { format: 'raw' }),
      await graph.open(at('bulk'), { format: to, writable: true }),
    ];
    expect(await compare(source, copy)).toEqual({ kind: 'identical' });
    expect(watched.done).toBeGreaterThanOrEqual(RUNS);
    const last = 2 * (RUNS - 1) * run + run - 1;
    await copy.write(last, new Uint8Array(1));
    expect(await compare(source, copy)).toEqual({ kind: 'content', offset: last - (last % 512) });
    await Promise.all([source.close(), copy.close()]);
  });
});
