/** V-50: the parent is found by its UUID, near the image. */
import { describe, expect, test } from 'vitest';
import { graphOn } from '../../../tests/support/sim-disks.ts';
import { FREE } from '../../../tests/support/vdi-bytes.ts';
import { BLOCK, block, blocks, concat, expectSame } from '../../../tests/support/vdi-on-sim.ts';
import {
  contentOf,
  hostWithFiles,
  refusal,
  type Uuids,
  uuidText,
  vdiImage,
  withChild,
} from '../../../tests/support/vdi-parents.ts';
import type { OpenOptions } from '../../core/disk.ts';
import type { SimHost } from '../../testing/index.ts';

const base = (uuids: Partial<Uuids> = {}) => vdiImage({ map: [0] }, { uuid: 1, ...uuids });
const child = (uuids: Partial<Uuids> = {}) => vdiImage({ map: [FREE] }, { uuid: 2, link: 1, ...uuids });

async function parentOf(host: SimHost, source: string, options: OpenOptions = {}): Promise<string | undefined> {
  const read = (path: string) =>
    withChild(host, async (disk) => disk.node.backing?.node.filename, { writable: false, ...options }, path);
  return read(source);
}

describe('the folder of the image', () => {
  test('holds the parent under any name', async () => {
    for (const name of ['a.vdi', 'Base.VDI', 'z', 'with:colon.vdi', '{weird} name']) {
      const host = hostWithFiles({ '/vm/child.vdi': child(), [`/vm/${name}`]: base() });
      expect(await parentOf(host, '/vm/child.vdi')).toBe(`/vm/${name}`);
    }
  });

  test('is that of a name without folders too', async () => {
    for (const name of ['base.vdi', 'a:b.vdi']) {
      const host = hostWithFiles({ 'child.vdi': child(), [name]: base() });
      expectSame(await contentOf(host, 'child.vdi'), block(1));
    }
  });

  test('is also that of the file a link leads to', async () => {
    const host = hostWithFiles({ '/images/child.vdi': child(), '/images/base.vdi': base() });
    host.link('/vm/disk.vdi', '/images/child.vdi');
    expect(await parentOf(host, '/vm/disk.vdi')).toBe('/images/base.vdi');
  });

  test('is looked through by name, the parent in its old state first', async () => {
    const host = hostWithFiles({
      '/vm/child.vdi': child(),
      '/vm/a.vdi': base({ state: 0x99 }),
      '/vm/c.vdi': base(),
      '/vm/d.vdi': base(),
    });
    expect(await parentOf(host, '/vm/child.vdi')).toBe('/vm/c.vdi');
    const changed = hostWithFiles({
      '/vm/child.vdi': child(),
      '/vm/b.vdi': base({ state: 0x99 }),
      '/vm/a.vdi': base({ state: 0x98 }),
    });
    expect(await parentOf(changed, '/vm/child.vdi')).toBe('/vm/a.vdi');
  });

  test('may hold what is no image, and what cannot be read', async () => {
    const host = hostWithFiles({
      '/vm/child.vdi': child(),
      '/vm/a.vdi': new Uint8Array(3),
      '/vm/b.vdi': new Uint8Array(4096).fill(7),
      '/vm/c.vdi': base(),
      '/vm/d.vdi': base(),
      '/vm/folder.vdi/x': base(),
    });
    host.faults.inject({ operation: 'open', path: '/vm/c.vdi', code: 'EACCES' });
    expect(await parentOf(host, '/vm/child.vdi')).toBe('/vm/d.vdi');
  });

  test('is read no further than the headers, and only regular files are', async () => {
    const files: Record<string, Uint8Array> = { '/vm/child.vdi': child(), '/vm/z.vdi': base() };
    for (let i = 0; i < 50; i++) files[`/vm/${i}.vdi`] = vdiImage({ map: [0] }, { uuid: i + 10 });
    const host = hostWithFiles(files, { refuseNow: 1 });
    await withChild(host, async () => {}, { writable: false }, '/vm/child.vdi');
    expect(host.counters.bytesRead).toBeLessThan(60 * 512);
  });

  test('is given up on after many files', async () => {
    const files: Record<string, Uint8Array> = { '/vm/child.vdi': child(), '/vm/zzz': base() };
    for (let i = 0; i < 5000; i++) files[`/vm/${i}.vdi`] = new Uint8Array(1);
    const host = hostWithFiles(files);
    expect(await refusal(parentOf(host, '/vm/child.vdi'))).toMatch(/^ENOENT No parent/);
    expect(host.counters.total).toBeLessThan(2100);
  });

  test('with a name that holds the UUID is looked at first, as VirtualBox names snapshots', async () => {
    const files: Record<string, Uint8Array> = { '/vm/child.vdi': child(), [`/vm/{${uuidText(1)}}.vdi`]: base() };
    for (let i = 0; i < 5000; i++) files[`/vm/${i}.vdi`] = new Uint8Array(1);
    expect(await parentOf(hostWithFiles(files), '/vm/child.vdi')).toBe(`/vm/{${uuidText(1)}}.vdi`);
  });
});

describe('further folders', () => {
  const files = {
    '/vm/base.vdi': base(),
    '/vm/Snapshots/one.vdi': child({ uuid: 2 }),
    '/vm/Snapshots/two.vdi': child({ uuid: 3, link: 2 }),
  };
  const open = (folders: string, path = '/vm/Snapshots/two.vdi') => ({
    driver: 'vdi',
    'parent-folders': folders,
    file: { driver: 'file', filename: path },
  });

  test('are seen from the image, and serve for all below it', async () => {
    for (const folders of ['..', '../', '/vm', '/nowhere:/vm', 'x:..']) {
      expectSame(await contentOf(hostWithFiles(files), open(folders)), block(1));
    }
  });

  test('that hold no parent are told with the UUID that is missing', async () => {
    const host = hostWithFiles(files);
    const text = (name: string, where: string, uuid: number) =>
      `No parent of '/vm/Snapshots/${name}' is in its folder${where}: it must be a VDI with the UUID ${uuidText(uuid)}`;
    expect(await refusal(contentOf(host, open('/x', '/vm/Snapshots/one.vdi')))).toBe(
      `ENOENT ${text('one.vdi', " or in '/x'", 1)}`,
    );
    expect(await refusal(contentOf(host, '/vm/Snapshots/two.vdi'))).toBe(
      `ENOENT Could not open backing file: ${text('one.vdi', '', 1)}`,
    );
    const hint = await graphOn(host)
      .open('/vm/Snapshots/one.vdi', { format: 'vdi' })
      .catch((error: { hint?: string }) => error.hint);
    expect(hint).toBe('Name it with backing.file.filename=FILE, or its folder with parent-folders=FOLDER');
  });
});

describe('a parent that is missing', () => {
  const host = () => hostWithFiles({ '/vm/child.vdi': child(), '/other/base.vdi': base(), '/other/raw': blocks(5) });
  const open = (backing: object | null) => ({
    driver: 'vdi',
    file: { driver: 'file', filename: '/vm/child.vdi' },
    backing: backing as null,
  });

  test('is not looked for when another image, or none, is given', async () => {
    const given = { driver: 'vdi', file: { driver: 'file', filename: '/other/base.vdi' } };
    expectSame(await contentOf(host(), open(given)), block(1));
    const plain = { driver: 'raw', file: { driver: 'file', filename: '/other/raw' } };
    expectSame(await contentOf(host(), open(plain)), block(5));
    expectSame(await contentOf(host(), open(null)), new Uint8Array(BLOCK));
    const none = await withChild(
      host(),
      (disk) => disk.read(0, BLOCK),
      { writable: false, noBacking: true },
      '/vm/child.vdi',
    );
    expectSame(none, new Uint8Array(BLOCK));
  });

  test('does not keep one from learning about the image', async () => {
    const info = await withChild(host(), async (disk) => disk.info(), { writable: false, noIO: true }, '/vm/child.vdi');
    expect(info.specific?.data).toMatchObject({ 'link-uuid': uuidText(1) });
  });
});

describe('images that are below themselves', () => {
  test('an image that is its own parent', async () => {
    const host = hostWithFiles({ '/vm/child.vdi': child({ uuid: 1 }) });
    expect(await refusal(parentOf(host, '/vm/child.vdi'))).toBe(
      `ELOOP '/vm/child.vdi' names itself as its parent: the UUID of both is ${uuidText(1)}`,
    );
  });

  test("two and three that are each other's parents", async () => {
    for (const length of [2, 3]) {
      const files: Record<string, Uint8Array> = {};
      for (let i = 1; i <= length; i++) files[`/vm/${i}.vdi`] = child({ uuid: i, link: (i % length) + 1 });
      for (const writable of [false, true]) {
        const host = hostWithFiles(files, { operationBudget: 500 });
        expect(await refusal(parentOf(host, '/vm/1.vdi', { writable }))).toMatch(
          /^ELOOP (Could not open backing file: )*The chain of images is a loop: '\/vm\/1\.vdi' would be below itself$/,
        );
        expect(host.openFiles).toEqual([]);
      }
    }
  });

  test('a copy of the image beside it', async () => {
    const host = hostWithFiles({ '/vm/1.vdi': child({ uuid: 1 }), '/vm/2.vdi': child({ uuid: 1 }) });
    expect(await refusal(parentOf(host, '/vm/1.vdi'))).toMatch(/^ELOOP /);
  });
});

test('images that record no parent need one, or none, named (V-50)', async () => {
  const image = vdiImage({ map: [FREE, 0], type: 4 }, { uuid: 2 });
  const host = hostWithFiles({ '/vm/child.vdi': image, '/vm/base.raw': blocks(5, 6) });
  expect(await refusal(contentOf(host, '/vm/child.vdi'))).toBe(
    "ENOENT '/vm/child.vdi' is based on another image and does not record which",
  );
  const file = { driver: 'file', filename: '/vm/child.vdi' };
  const raw = { driver: 'raw', file: { driver: 'file', filename: '/vm/base.raw' } };
  expectSame(await contentOf(host, { driver: 'vdi', file, backing: raw }), concat(block(5), block(1)));
  expectSame(await contentOf(host, { driver: 'vdi', file, backing: null }), concat(block(0), block(1)));
});
