/** V-50: another parent, none, and emptying after a commit. */
import { describe, expect, test } from 'vitest';
import { FREE, ZERO } from '../../../tests/support/vdi-bytes.ts';
import { BLOCK, block, blocks, checked, concat, expectSame } from '../../../tests/support/vdi-on-sim.ts';
import {
  BASE,
  CHILD,
  contentOf,
  hostWithFiles,
  pair,
  refusal,
  storedIn,
  uuidIn,
  vdiImage,
  withChild,
} from '../../../tests/support/vdi-parents.ts';
import type { Disk } from '../../core/disk.ts';
import type { BackingReference } from '../../core/driver.ts';
import type { SimHost } from '../../testing/index.ts';

const OTHER = '/other.vdi';

/** Changes what the header names, with no image linked below. */
function change(host: SimHost, reference: BackingReference | undefined, path = CHILD): Promise<void> {
  return withChild(host, (disk) => changeIn(disk, reference), { noBacking: true }, path);
}

async function changeIn(disk: Disk, reference: BackingReference | undefined): Promise<void> {
  await disk.node.impl.changeBacking?.(reference);
  await disk.flush();
}

const vdi = (filename: string): BackingReference => ({ filename, format: 'vdi' });

describe('changeBacking', () => {
  test('records another parent, and changes nothing else', async () => {
    const host = hostWithFiles({
      [OTHER]: vdiImage({ map: [1, 0] }, { uuid: 7, state: 0x78 }),
      [CHILD]: vdiImage({ map: [FREE, ZERO] }, { uuid: 2, link: 1 }),
    });
    for (const name of [
      OTHER,
      'other.vdi',
      `file:${OTHER}`,
      `json:{"driver":"vdi","file":{"driver":"file","filename":"${OTHER}"}}`,
    ]) {
      await change(host, vdi(name));
      expect([uuidIn(host, 'linkUuid'), uuidIn(host, 'parentUuid'), uuidIn(host, 'modificationUuid')]).toEqual([
        7, 0x78, 0x42,
      ]);
    }
    expectSame(await contentOf(host), blocks(2, 0));
    expect(host.warnings).toEqual([]);
  });

  test('takes the UUIDs of an image that is linked below from it, not from its file', async () => {
    const host = pair([FREE, FREE, FREE, FREE]);
    await withChild(host, async (disk) => {
      await changeIn(disk, vdi(BASE));
      expect(disk.node.storedBacking).toEqual(vdi(BASE));
      disk.node.impl.checkBacking?.();
    });
    expect(uuidIn(host, 'parentUuid')).toBe(0x41);
  });

  test('makes a base image a child without showing the parent anywhere', async () => {
    const host = hostWithFiles({
      [BASE]: vdiImage({ map: [0, 1, 2] }, { uuid: 1 }),
      [CHILD]: vdiImage({ map: [FREE, 0, ZERO] }, { uuid: 2 }),
    });
    await change(host, vdi(BASE));
    expect(storedIn(host).map).toEqual([ZERO, 0, ZERO]);
    expectSame(await contentOf(host), blocks(0, 1, 0));
    expect(host.warnings).toEqual([]);
  });

  test('makes a child a base image when no image is below any more', async () => {
    const host = pair([ZERO, 0, FREE, FREE]);
    await change(host, undefined);
    expectSame(await contentOf(host), blocks(0, 1, 0, 0));
    expect([uuidIn(host, 'linkUuid'), uuidIn(host, 'parentUuid'), uuidIn(host, 'type')]).toEqual([0, 0, 1]);
  });

  test('refuses to drop a parent that still shows', async () => {
    const host = pair([ZERO, FREE, FREE, FREE]);
    await withChild(host, async (disk) => {
      expect(await refusal(changeIn(disk, undefined))).toBe(`EBUSY Block 1 of '${CHILD}' still shows '${BASE}'`);
      await disk.write(BLOCK, blocks(1, 2, 3));
      await changeIn(disk, undefined);
    });
    expect(uuidIn(host, 'type')).toBe(1);
    expectSame(await contentOf(host), blocks(0, 1, 2, 3));
  });

  test('refuses parents that cannot be recorded', async () => {
    const host = hostWithFiles({
      '/plain': blocks(1),
      '/null.vdi': vdiImage({ map: [0] }, { uuid: 0 }),
      '/static.vdi': vdiImage({ map: [0], type: 2 }, { uuid: 9 }),
      [CHILD]: vdiImage({ map: [FREE] }, { uuid: 2, link: 1 }),
    });
    const told = (filename: string, format = 'vdi', path = CHILD) => refusal(change(host, { filename, format }, path));
    expect(await told('/plain', 'raw')).toBe(
      "ENOTSUP A VDI image cannot record '/plain' of format 'raw' as its parent: it must be a VDI",
    );
    expect(await told('/plain')).toBe("EINVAL '/plain' is no VDI image");
    expect(await told('/nope')).toMatch(/^ENOENT /);
    expect(await told('/null.vdi')).toBe("EINVAL '/null.vdi' has a null UUID, so that it cannot be a parent");
    expect(await told(CHILD)).toBe(`EINVAL '${CHILD}' has the UUID of the image that is to be based on it`);
    expect(await told('json:{"driver":"vdi","file":{"driver":"null-co"}}')).toMatch(
      /^ENOTSUP 'json:.*' is no VDI in a local file/,
    );
    expect(await told(CHILD, 'vdi', '/static.vdi')).toBe(
      "ENOTSUP '/static.vdi' is a static image, which has no parent",
    );
    expect(uuidIn(host, 'linkUuid')).toBe(1);
  });

  test('leaves an overlay that records nothing as it is over other formats', async () => {
    const host = hostWithFiles({ [CHILD]: vdiImage({ map: [FREE], type: 4 }, { uuid: 2 }) });
    const before = host.contents(CHILD);
    await change(host, { filename: '/plain', format: 'raw' });
    expectSame(host.contents(CHILD), before);
  });
});

describe('makeEmpty', () => {
  test('drops all blocks, frees the file, and takes the parent as it is now', async () => {
    const host = hostWithFiles({
      [BASE]: vdiImage({ map: [0, 1, 2, 3] }, { uuid: 1, state: 0x77 }),
      [CHILD]: vdiImage({ map: [1, ZERO, FREE, 0] }, { uuid: 2, link: 1 }),
    });
    await withChild(host, async (disk) => {
      await disk.node.impl.makeEmpty?.();
      await disk.flush();
      expectSame(await disk.read(0, disk.length), blocks(1, 2, 3, 4));
      expect((await checked(disk)).report).toMatchObject({ corruptions: 0, leaks: 0, allocatedClusters: 0 });
    });
    expect(storedIn(host)).toMatchObject({ map: [FREE, FREE, FREE, FREE], allocated: 0 });
    expect(host.contents(CHILD).length).toBe(storedIn(host).dataOffset);
    expect(uuidIn(host, 'parentUuid')).toBe(0x77);
    const { length } = host.warnings;
    await contentOf(host);
    expect(host.warnings.length).toBe(length);
  });

  test('leaves the image to be written as before', async () => {
    const host = pair([0, 1, FREE, FREE]);
    await withChild(host, async (disk) => {
      await disk.node.impl.makeEmpty?.();
      await disk.write(3 * BLOCK + 5, block(9, 5));
    });
    expectSame(await contentOf(host), concat(blocks(1, 2, 3), block(4, 5), block(9, 5), block(4, BLOCK - 10)));
    expect(storedIn(host).map).toEqual([FREE, FREE, FREE, 0]);
  });

  test('is not for static images', async () => {
    const host = hostWithFiles({ [CHILD]: vdiImage({ map: [0], type: 2 }, { uuid: 2 }) });
    const text = `ENOTSUP '${CHILD}' is a static image: it cannot be emptied`;
    await withChild(host, async (disk) =>
      expect(await refusal(disk.node.impl.makeEmpty?.() ?? Promise.resolve())).toBe(text),
    );
  });
});
