import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { overlay } from '../../tests/support/overlay.ts';
import { defineFilter } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import { Graph } from '../core/graph.ts';
import type { BlockNode } from '../core/node.ts';
import type { NestedOptions } from '../core/options.ts';
import { Permission } from '../core/permissions.ts';
import * as request from '../core/request.ts';
import { raw } from '../formats/raw.ts';
import { file } from '../protocols/file.ts';
import { memory } from '../protocols/memory.ts';
import { differsAt } from '../testing/compare-bytes.ts';
import { SimHost, type SimHostOptions } from '../testing/index.ts';
import { copyOnRead } from './copy-on-read.ts';

const CLUSTER = 4096;
const LENGTH = 16 * CLUSTER;

/** Events that came to it, and the one it fails at. */
interface Hooks {
  events: string[];
  failWrites: boolean;
}

function setUp(options: SimHostOptions = {}) {
  const host = new SimHost(options);
  const hooks: Hooks = { events: [], failWrites: false };
  const hook = defineFilter<Record<never, never>>({
    name: 'hook',
    summary: 'Listens to events and fails writes',
    options: {},
    open: async ({ file: below }) => ({
      debugEvent: (event) => void hooks.events.push(event),
      async write(offset, source, flags) {
        if (hooks.failWrites) throw new BlockError('ENOSPC', 'No space left on device');
        await below.write(offset, source, flags);
      },
    }),
  });
  const graph = new Graph({ host, drivers: [file, memory, raw, overlay, hook, copyOnRead] });
  return { host, graph, hooks };
}

const storage = { driver: 'memory', size: LENGTH };
const layer = (name: string, backing: NestedOptions | string | null, more: NestedOptions = {}): NestedOptions => ({
  driver: 'overlay',
  'node-name': name,
  file: storage,
  backing,
  ...more,
});
const withFilter = (top: NestedOptions, more: NestedOptions = {}): NestedOptions => ({
  driver: 'copy-on-read',
  file: top,
  ...more,
});
const bytes = (value: number, length = CLUSTER) => new Uint8Array(length).fill(value);

/** Opens a layer that is held, over one that is, and writes clusters of it before anything is above. */
async function addLayer(graph: Graph, tree: NestedOptions, first = 0, count = 0, value = 0): Promise<BlockNode> {
  const node = await graph.add(tree);
  await using disk = await graph.openReference(node.name, { writable: true });
  if (count > 0) await disk.write(first * CLUSTER, bytes(value, count * CLUSTER));
  return node;
}

/** top over mid over base: base has 1 in clusters 0 to 7, mid 2 in clusters 4 to 5, top 3 in cluster 6. */
async function chain(more: NestedOptions = {}) {
  const { graph, hooks } = setUp();
  const base = await addLayer(graph, layer('base', null), 0, 8, 1);
  await addLayer(graph, layer('mid', 'base'), 4, 2, 2);
  const top = await addLayer(graph, layer('top', 'mid'), 6, 1, 3);
  const disk = await graph.open({ driver: 'copy-on-read', file: 'top', ...more }, { writable: true });
  return { graph, hooks, base, top, disk };
}

/** Clusters of the top layer: `d` data, `z` zero, `.` nothing. */
async function map(graph: Graph, name = 'top'): Promise<string> {
  const node = graph.lookUp(name);
  let text = '';
  for (let at = 0; at < node.impl.length(); at += CLUSTER) {
    const extent = await node.impl.status?.(at, CLUSTER);
    text += extent?.kind === 'data' ? 'd' : extent?.kind === 'zero' ? 'z' : '.';
  }
  return text;
}

describe('copy-on-read', () => {
  test('copies whole clusters from all layers below, and only what is read', async () => {
    const { graph, disk } = await chain();
    expect(await map(graph)).toBe('......d.........');
    expect(await disk.read(100, 10)).toEqual(bytes(1, 10));
    expect(await map(graph)).toBe('d.....d.........');
    expect(await disk.read(4 * CLUSTER - 1, 2)).toEqual(Uint8Array.of(1, 2));
    expect(await map(graph)).toBe('d..dd.d.........');
    expect(await disk.read(5 * CLUSTER, 3 * CLUSTER)).toEqual(Uint8Array.of(...bytes(2), ...bytes(3), ...bytes(1)));
    expect(await map(graph)).toBe('d..ddddd........');
    await disk.close();
  });

  test('what no layer stores becomes zero in the top one', async () => {
    const { graph, disk } = await chain();
    expect(await disk.read(7 * CLUSTER, 3 * CLUSTER)).toEqual(Uint8Array.of(...bytes(1), ...bytes(0, 2 * CLUSTER)));
    expect(await map(graph)).toBe('......ddzz......');
    await disk.close();
  });

  test('zeroes below are not copied as data', async () => {
    const { graph, base, disk } = await chain();
    await base.impl.writeZeroes?.(CLUSTER, CLUSTER, {});
    expect(await disk.read(CLUSTER, CLUSTER)).toEqual(bytes(0));
    expect(await map(graph)).toBe('.z....d.........');
    await disk.close();
  });

  test('bottom: nothing below that node is copied, nor zeroes of nowhere', async () => {
    const { graph, disk } = await chain({ bottom: 'mid' });
    const content = await disk.read(0, LENGTH);
    expect(content.subarray(0, CLUSTER)).toEqual(bytes(1));
    expect(await map(graph)).toBe('....ddd.........');
    await disk.close();
  });

  test('bottom is the top itself: nothing is copied', async () => {
    const { graph, disk } = await chain({ bottom: 'top' });
    expect(await disk.read(4 * CLUSTER, CLUSTER)).toEqual(bytes(2));
    expect(await map(graph)).toBe('......d.........');
    await disk.close();
  });

  test('no such bottom in the chain', async () => {
    const { graph, top } = await chain();
    await graph.add({ ...storage, 'node-name': 'elsewhere' });
    for (const bottom of ['nope', 'elsewhere', '']) {
      await expect(graph.open({ driver: 'copy-on-read', file: 'top', bottom })).rejects.toMatchObject({
        code: 'EINVAL',
        message: `Bottom node '${bottom}' not found`,
      });
    }
    expect(top.inUse).toBe(true);
  });

  test('an image without one below it stays as it is', async () => {
    const { graph } = setUp();
    await using disk = await graph.open(withFilter(layer('top', null)), { writable: true });
    expect(differsAt(await disk.read(0, LENGTH), bytes(0, LENGTH))).toBe(-1);
    expect(await map(graph)).toBe('................');
  });

  test.each<[string, NestedOptions, { writable: boolean }]>([
    ['opened for reading', {}, { writable: false }],
    ['read-only', { 'read-only': true }, { writable: true }],
  ])('needs a top that can be written: %s', async (_name, more, options) => {
    const { graph } = setUp();
    const tree = withFilter(layer('top', layer('base', null)), { bottom: 'nope', ...more });
    await expect(graph.open(tree, options)).rejects.toMatchObject({
      code: 'EPERM',
      message: 'Block node is read-only',
    });
    expect(graph.nodes()).toEqual([]);
  });

  test('copies also for readers, when only the filter is read-only', async () => {
    const { graph } = await chain();
    await using disk = await graph.open({ driver: 'copy-on-read', file: 'top', 'read-only': true });
    expect(await disk.read(0, CLUSTER)).toEqual(bytes(1));
    expect(await map(graph)).toBe('d.....d.........');
  });

  test('asks for the permission to write what is there already, for readers too', async () => {
    const { graph, disk } = await chain();
    const [link] = graph.lookUp('top').parents;
    expect(link?.held.need).toBe(Permission.consistentRead | Permission.write | Permission.writeUnchanged);
    await disk.close();
    const node = await graph.add({ driver: 'copy-on-read', file: 'top', 'node-name': 'filter' });
    expect(graph.lookUp('top').parents[0]?.held.need).toBe(Permission.writeUnchanged);
    const reader = await graph.openReference('filter');
    expect(graph.lookUp('top').parents[0]?.held.need).toBe(Permission.consistentRead | Permission.writeUnchanged);
    expect(await reader.read(0, 1)).toEqual(bytes(1, 1));
    expect(await map(graph)).toBe('d.....d.........');
    await reader.close();
    await graph.release(node);
  });

  test('a bitmap of changes does not grow by it', async () => {
    const { graph, disk } = await chain();
    const changes: string[] = [];
    const tracker = {
      changed: (offset: number, length: number) => void changes.push(`${offset}+${length}`),
      checkResize() {},
      resized() {},
    };
    graph.lookUp('top').trackers = [tracker];
    await disk.read(0, CLUSTER);
    expect(changes).toEqual([]);
    await disk.write(0, bytes(9));
    expect(changes).toEqual([`0+${CLUSTER}`]);
    await disk.close();
  });

  test('what is copied is flushed with the rest', async () => {
    const { graph, disk } = await chain();
    await disk.flush();
    const before = graph.lookUp('top').writeGeneration;
    await disk.read(0, CLUSTER);
    expect(graph.lookUp('top').writeGeneration).toBeGreaterThan(before);
    await disk.close();
  });

  test('answers at once where nothing is to be copied', async () => {
    const { graph } = setUp();
    const raws = { driver: 'raw', 'node-name': 'top', file: storage };
    await using disk = await graph.open(withFilter(raws), { writable: true });
    await disk.write(0, bytes(5));
    const target = bytes(0);
    expect(disk.tryReadNow(0, target)).toBe(true);
    expect(target).toEqual(bytes(5));
    expect(disk.tryStatusNow(0, CLUSTER)).toMatchObject({ data: true });
  });

  test('tells of the copy by cor_write, at the node that is written; its failure is the failure of the read', async () => {
    const { graph, hooks } = setUp();
    await addLayer(graph, layer('base', null), 0, 1, 1);
    await using disk = await graph.open(withFilter({ driver: 'hook', file: layer('top', 'base') }), { writable: true });
    hooks.failWrites = true;
    await expect(disk.read(0, 10)).rejects.toMatchObject({ code: 'ENOSPC' });
    expect(hooks.events).toEqual(['cor_write']);
    expect(await map(graph)).toBe('................');
    hooks.failWrites = false;
    expect(await disk.read(0, 10)).toEqual(bytes(1, 10));
    expect(hooks.events).toEqual(['cor_write', 'cor_write']);
    await disk.read(0, 10);
    expect(hooks.events).toHaveLength(2);
  });

  test('layers of unlike clusters and lengths', async () => {
    const { graph } = setUp();
    const short = { file: { driver: 'memory', size: 2 * CLUSTER + 1024 }, cluster: 512, partial: true };
    await addLayer(graph, layer('base', null, short));
    const writer = await graph.openReference('base', { writable: true });
    await writer.write(512, bytes(1, 1024));
    await writer.write(2 * CLUSTER, bytes(2, 1024));
    await writer.close();
    const tree = layer('top', 'base', { cluster: 4 * CLUSTER });
    await using disk = await graph.open(withFilter(tree), { writable: true });
    const expected = bytes(0, LENGTH);
    expected.fill(1, 512, 1536).fill(2, 2 * CLUSTER, 2 * CLUSTER + 1024);
    expect(differsAt(await disk.read(0, LENGTH), expected)).toBe(-1);
    expect(await map(graph)).toBe('ddddzzzzzzzzzzzz');
    expect(differsAt(await disk.read(0, LENGTH), expected)).toBe(-1);
  });
});

interface Step {
  /** Of 1000 bytes. Only the first write of a block is done, so that the outcome is known. */
  readonly block: number;
  readonly write: boolean;
}

/** All steps at once, with the delays of a seed. */
async function race(seed: number, steps: readonly Step[], pastFilter: boolean): Promise<void> {
  const { graph, host } = setUp({ seed, latency: { min: 0, max: 5 } });
  for (const name of ['top', 'base']) host.put(name, LENGTH);
  const stored = (name: string) => ({ file: { driver: 'file', filename: name } });
  await addLayer(graph, layer('base', null, stored('base')), 0, LENGTH / CLUSTER, 1);
  await using disk = await graph.open(withFilter(layer('top', 'base', stored('top'))), { writable: true });
  const top = graph.lookUp('top');
  const expected = bytes(1, LENGTH);
  const written = new Set<number>();
  const under: Promise<unknown>[] = [];
  for (const [index, { block, write }] of steps.entries()) {
    const offset = block * 1000 + 13;
    if (!write || written.has(block)) {
      under.push(disk.read(offset, Math.min(5000, LENGTH - offset)));
      continue;
    }
    written.add(block);
    const data = bytes(2 + index, 900);
    expected.set(data, offset);
    under.push(pastFilter ? request.write(top, offset, data, {}) : disk.write(offset, data));
  }
  await Promise.all(under);
  expect(differsAt(await disk.read(0, LENGTH), expected)).toBe(-1);
}

describe('copy-on-read beside writes', () => {
  const step = fc.record({ block: fc.integer({ min: 0, max: Math.floor(LENGTH / 1000) - 1 }), write: fc.boolean() });

  test.each([
    ['through the filter', false],
    ['past the filter', true],
  ])('no write is undone by what was read before it: %s', async (_name, pastFilter) => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 1e6 }), fc.array(step, { maxLength: 12 }), (seed, steps) =>
        race(seed, steps, pastFilter),
      ),
      { numRuns: 60 },
    );
  });
});
