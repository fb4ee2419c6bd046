/** V-50: a parent that does not fit is told of, and nothing is written down into it. */
import { describe, expect, test } from 'vitest';
import { graphOn } from '../../../tests/support/sim-disks.ts';
import { FREE } from '../../../tests/support/vdi-bytes.ts';
import { BLOCK, block, blocks, expectSame } from '../../../tests/support/vdi-on-sim.ts';
import {
  BASE,
  CHILD,
  contentOf,
  hostWithFiles,
  pair,
  refusal,
  uuidIn,
  uuidText,
  vdiImage,
  withChild,
} from '../../../tests/support/vdi-parents.ts';
import type { Disk } from '../../core/disk.ts';
import { Permission } from '../../core/permissions.ts';
import { setReadOnly } from '../../core/reopen.ts';
import type { SimHost } from '../../testing/index.ts';

const CHANGED = `'${BASE}' was changed after '${CHILD}' was made over it: its modification UUID is ${uuidText(0x77)}, not ${uuidText(0x41)}`;

function changedPair(): SimHost {
  return hostWithFiles({
    [BASE]: vdiImage({ map: [0] }, { uuid: 1, state: 0x77 }),
    [CHILD]: vdiImage({ map: [FREE] }, { uuid: 2, link: 1 }),
  });
}

/** A child that is only read lets others write to what is below it. */
function withReader(host: SimHost, work: (disk: Disk) => Promise<void>): Promise<void> {
  return withChild(host, work, { writable: false });
}

/** Asks for permission to write to the image below, as a commit does. */
async function writeBelow(host: SimHost, disk: Disk): Promise<void> {
  const { graph } = disk;
  const node = disk.node.backing?.node;
  if (node === undefined) throw new TypeError('there is an image below');
  await setReadOnly(graph, node, false);
  const share = Permission.consistentRead | Permission.writeUnchanged;
  const need = Permission.consistentRead | Permission.write;
  const link = graph.attach('base', { description: 'a test' }, node, 'filtered', { need, share });
  await link.write(0, block(9, 10));
  await graph.detach(link);
  expect(host.warnings.length).toBeLessThan(2);
}

describe('a parent that was changed', () => {
  test('is warned of at opening, for reading and for writing', async () => {
    for (const writable of [false, true]) {
      const host = changedPair();
      await withChild(host, async (disk) => expectSame(await disk.read(0, BLOCK), block(1)), { writable });
      expect(host.warnings).toEqual([`warning: ${CHANGED}`]);
    }
  });

  test('is not written to from below its child', async () => {
    const host = changedPair();
    await withReader(host, async (disk) => {
      expect(await refusal(writeBelow(host, disk))).toBe(
        `EPERM Cannot write to '${BASE}' below '${CHILD}': ${CHANGED}`,
      );
    });
    expectSame(await contentOf(host, BASE), block(1));
  });

  test('goes unsaid where nothing of it is read', async () => {
    const host = changedPair();
    await withChild(host, async () => {}, { writable: false, noBacking: true });
    await withChild(host, async () => {}, { writable: false, noIO: true });
    expect(host.warnings).toEqual([]);
  });
});

describe('a parent that was not', () => {
  test('is written to, more than once', async () => {
    const host = pair([FREE]);
    await withReader(host, async (disk) => {
      await writeBelow(host, disk);
      await writeBelow(host, disk);
    });
    expect(host.warnings).toEqual([]);
    expectSame((await contentOf(host, BASE)).subarray(0, 20), new Uint8Array([...block(9, 10), ...block(1, 10)]));
    // By its own words the child does not fit any more, until someone says that it does.
    await contentOf(host);
    expect(host.warnings.length).toBe(1);
  });
});

test('another image than the recorded one is warned of', async () => {
  const host = hostWithFiles({
    '/other.vdi': vdiImage({ map: [0] }, { uuid: 7 }),
    [CHILD]: vdiImage({ map: [FREE] }, { uuid: 2, link: 1 }),
  });
  const file = { driver: 'file', filename: CHILD };
  const backing = { driver: 'vdi', file: { driver: 'file', filename: '/other.vdi' } };
  await contentOf(host, { driver: 'vdi', file, backing });
  expect(host.warnings).toEqual([
    `warning: '/other.vdi' is not the parent of '${CHILD}': its UUID is ${uuidText(7)}, not ${uuidText(1)}`,
  ]);
});

test('images of other formats, and children that record nothing, are not compared', async () => {
  const file = { driver: 'file', filename: CHILD };
  const host = hostWithFiles({ '/raw': blocks(5), [CHILD]: vdiImage({ map: [FREE] }, { uuid: 2, link: 1 }) });
  const raw = { driver: 'raw', file: { driver: 'file', filename: '/raw' } };
  await contentOf(host, { driver: 'vdi', file, backing: raw });
  expect(host.warnings).toEqual([]);
  const other = hostWithFiles({
    [BASE]: vdiImage({ map: [0] }, { uuid: 1 }),
    [CHILD]: vdiImage({ map: [FREE], type: 4 }, { uuid: 2 }),
  });
  const backing = { driver: 'vdi', file: { driver: 'file', filename: BASE } };
  await contentOf(other, { driver: 'vdi', file, backing });
  expect(other.warnings).toEqual([]);
});

test('a further session of writing changes the modification UUID again, so that children made between notice (V-64)', async () => {
  const host = pair([FREE]);
  const graph = graphOn(host);
  const node = await graph.add({ driver: 'vdi', file: { driver: 'file', filename: BASE } });
  const states: number[] = [];
  for (let session = 0; session < 2; session++) {
    await setReadOnly(graph, node, false);
    const disk = await graph.openReference(node.name, { writable: true });
    await disk.write(0, block(session));
    await disk.flush();
    await disk.write(0, block(9));
    await disk.flush();
    states.push(uuidIn(host, 'modificationUuid', BASE));
    await disk.close();
    await setReadOnly(graph, node, true);
  }
  await graph.release(node);
  expect(new Set([0x41, ...states]).size).toBe(3);
});
