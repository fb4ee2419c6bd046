/** Snapshots and temporary overlays of VDIs (BL-OPEN-28, V-50). */
import { describe, expect, test } from 'vitest';
import { Graph } from '../../src/core/graph.ts';
import { commit } from '../../src/jobs/commit.ts';
import { DRIVERS, graphOn } from '../support/drivers.ts';
import { ZERO } from '../support/vdi-bytes.ts';
import { BLOCK, block, blocks, expectSame } from '../support/vdi-on-sim.ts';
import { BASE, contentOf, hostWithFiles, storedIn, uuidIn, vdiImage } from '../support/vdi-parents.ts';

const newHost = () =>
  hostWithFiles({ [BASE]: vdiImage({ map: [0, 1, ZERO, 2] }, { uuid: 1 }), '/raw': blocks(5, 6, 7) });

describe('a temporary overlay', () => {
  const layers = [
    ['vdi', BASE, blocks(1, 2, 0, 3)],
    ['raw', '/raw', blocks(5, 6, 7)],
  ] as const;
  // The newest format that can: qcow2, or VDI where that is not there.
  const drivers = { qcow2: DRIVERS, vdi: DRIVERS.filter(({ name }) => name !== 'qcow2') };
  test.each(layers.flatMap((layer) => (['qcow2', 'vdi'] as const).map((top) => [top, ...layer] as const)))(
    'of %s over %s takes all writes, and is gone afterwards',
    async (top, format, path, before) => {
      const host = newHost();
      const graph = new Graph({ host, drivers: drivers[top] });
      const disk = await graph.open(path, { format, writable: true, snapshot: true });
      expect(disk.format).toBe(top);
      expectSame(await disk.read(0, disk.length), before);
      await disk.write(100, block(9, 50));
      await disk.writeZeroes(BLOCK, BLOCK);
      await disk.flush();
      const expected = before.slice();
      expected.fill(9, 100, 150).fill(0, BLOCK, 2 * BLOCK);
      expectSame(await disk.read(0, disk.length), expected);
      await disk.close();
      expect(graph.nodes()).toEqual([]);
      expect(await host.files.list('/var/tmp').catch(() => [])).toEqual([]);
      const again = await graph.open(path, { format });
      expectSame(await again.read(0, again.length), before);
      await again.close();
      expect(host.warnings).toEqual([]);
    },
  );
});

describe('a snapshot of an open VDI', () => {
  test('takes what is written from then on, and is found again by the UUIDs', async () => {
    const host = newHost();
    const graph = graphOn(host);
    const disk = await graph.open(BASE, { format: 'vdi', writable: true });
    const contents = [blocks(1, 2, 0, 3)];
    for (const [index, name] of ['/one.vdi', '/two.vdi'].entries()) {
      await disk.write(index * BLOCK + 7, block(0x70 + index, 20));
      contents[index] = await disk.read(0, disk.length);
      await graph.snapshot(disk, name);
      expect(disk.node.filename).toBe(name);
    }
    await disk.write(3 * BLOCK + 7, block(0x72, 20));
    contents.push(await disk.read(0, disk.length));
    await disk.close();
    for (const [index, name] of [BASE, '/one.vdi', '/two.vdi'].entries()) {
      expectSame(await contentOf(host, name), contents[index] ?? blocks());
    }
    expect(storedIn(host, '/two.vdi').allocated).toBe(1);
    expect(host.warnings).toEqual([]);
    // Each knows the state of the one below.
    for (const [above, below] of [
      ['/one.vdi', BASE],
      ['/two.vdi', '/one.vdi'],
    ] as const) {
      expect(uuidIn(host, 'parentUuid', above)).toBe(uuidIn(host, 'modificationUuid', below));
      expect(uuidIn(host, 'linkUuid', above)).toBe(uuidIn(host, 'uuid', below));
    }
  });

  test('is committed in the session that made it, and fits afterwards', async () => {
    const host = newHost();
    const graph = graphOn(host);
    const disk = await graph.open(BASE, { format: 'vdi', writable: true });
    await disk.write(0, block(0x71, 20));
    await graph.snapshot(disk, '/one.vdi');
    await disk.write(BLOCK + 9, block(0x72, 20));
    const content = await disk.read(0, disk.length);
    await commit(disk);
    expectSame(await disk.read(0, disk.length), content);
    await disk.write(2 * BLOCK, block(0x73, 20));
    await disk.close();
    content.fill(0x73, 2 * BLOCK, 2 * BLOCK + 20);
    expectSame(await contentOf(host, '/one.vdi'), content);
    expect(storedIn(host, '/one.vdi').allocated).toBe(1);
    expect(host.warnings).toEqual([]);
  });
});
