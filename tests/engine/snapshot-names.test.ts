/** What an overlay's header says of the image below, wherever both lie (BL-NAME-6, BL-REFRESH-6). */
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import { Graph } from '../../src/core/graph.ts';
import type { Host } from '../../src/core/host.ts';
import { throttleGroups } from '../../src/filters/throttle/groups.ts';
import { throttle } from '../../src/filters/throttle/throttle.ts';
import { nodeHost } from '../../src/node/host.ts';
import { DRIVERS } from '../support/drivers.ts';
import { layerFormat } from '../support/overlay-format.ts';
import { ZERO } from '../support/vdi-bytes.ts';
import { block, blocks, expectSame } from '../support/vdi-on-sim.ts';
import { BASE, contentOf, hostWithFiles, vdiImage } from '../support/vdi-parents.ts';

const folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'diskwright-')));
afterAll(() => rmSync(folder, { recursive: true }));

/** With a throttle group 'slow'. */
function slowGraph(host: Host): Graph {
  throttleGroups(host).add('slow');
  return new Graph({ host, drivers: [...DRIVERS, throttle, layerFormat()] });
}

/** As seen from where the tests run. */
const here = path.relative(process.cwd(), folder);

describe.each([
  ['vdi', 'base.vdi'],
  ['layer', 'base.layer'],
])('an overlay of a %s', (format, base) => {
  const sub = (name: string) => path.join(here, format, name);
  const newGraph = () => slowGraph(nodeHost());

  async function opened() {
    await mkdir(sub('one'), { recursive: true });
    await mkdir(sub('two'), { recursive: true });
    const graph = newGraph();
    const filename = sub(`one/${base}`);
    await createImage(graph, { filename, format, size: 4096 });
    const disk = await graph.open(filename, { format, writable: true });
    await disk.write(0, new Uint8Array(512).fill(7));
    return { graph, disk, filename };
  }

  test.each([
    ['the same folder', 'one/overlay', base],
    ['another folder', 'two/overlay', path.join(folder, format, 'one', base)],
  ])('in %s finds it again', async (_where, name, stored) => {
    const { graph, disk, filename } = await opened();
    const overlay = await graph.snapshot(disk, sub(name));
    expect(disk.filename).toBe(sub(name));
    expect(overlay.backing?.node.filename).toBe(filename);
    if (format === 'layer') expect(overlay.storedBacking).toEqual({ filename: stored, format });
    await disk.write(512, new Uint8Array(512).fill(8));
    const content = await disk.read(0, 4096);
    await disk.close();
    const where = format === 'vdi' ? { driver: format, 'parent-folders': '../one' } : { driver: format };
    const again = await newGraph().open({ ...where, file: { driver: 'file', filename: sub(name) } });
    expect(await again.read(0, 4096)).toEqual(content);
    await again.close();
  });

  test('names the image, not the filters that are on it now', async () => {
    const { graph, disk } = await opened();
    await graph.insertFilter(disk, { driver: 'throttle', 'throttle-group': 'slow' });
    const overlay = await graph.snapshot(disk, sub('one/over-filter'));
    expect([overlay.driver.name, overlay.backing?.node.driver.name]).toEqual([format, 'throttle']);
    if (format === 'layer') expect(overlay.storedBacking).toEqual({ filename: base, format });
    await disk.close();
    const again = await newGraph().open(sub('one/over-filter'), { format });
    expect((await again.read(0, 512))[0]).toBe(7);
    await again.close();
  });
});

test('a VDI knows its parent through a filter too (V-50)', async () => {
  const host = hostWithFiles({
    [BASE]: vdiImage({ map: [0, 1, ZERO, 2] }, { uuid: 1 }),
    '/child.vdi': vdiImage({ map: [ZERO, 0, ZERO, ZERO] }, { uuid: 2, link: 1 }),
    '/other.vdi': vdiImage({ map: [0, 1, ZERO, 2] }, { uuid: 9 }),
  });
  const graph = slowGraph(host);
  const slow = (filename: string) => ({
    driver: 'throttle',
    'throttle-group': 'slow',
    file: { driver: 'vdi', file: { driver: 'file', filename } },
  });
  const child = { driver: 'vdi', file: { driver: 'file', filename: '/child.vdi' } };
  const right = await graph.open({ ...child, backing: slow(BASE) });
  await right.close();
  expect(host.warnings).toEqual([]);
  const wrong = await graph.open({ ...child, backing: slow('/other.vdi') });
  await wrong.close();
  expect(host.warnings).toEqual([expect.stringContaining("'/child.vdi': its UUID is ")]);
});

test('a snapshot of a throttled VDI records the UUIDs, and fits (V-50)', async () => {
  const host = hostWithFiles({ [BASE]: vdiImage({ map: [0, 1, ZERO, 2] }, { uuid: 1 }) });
  const graph = slowGraph(host);
  const disk = await graph.open(BASE, { format: 'vdi', writable: true });
  await graph.insertFilter(disk, { driver: 'throttle', 'throttle-group': 'slow' });
  await graph.snapshot(disk, '/one.vdi');
  await disk.write(0, block(9, 20));
  await disk.close();
  const expected = blocks(1, 2, 0, 3);
  expected.fill(9, 0, 20);
  expectSame(await contentOf(host, '/one.vdi'), expected);
  expect(host.warnings).toEqual([]);
  expect(graph.nodes()).toEqual([]);
});
