/** Copy-on-read that a user asks for (BL-OPEN-24). */
import { expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { SimHost } from '../../src/testing/index.ts';

async function chain() {
  const host = new SimHost();
  const graph = new Graph({ host, drivers: DRIVERS });
  await createImage(graph, { filename: '/base.vdi', format: 'vdi', options: { size: '4M' } });
  {
    await using base = await graph.open('/base.vdi', { writable: true });
    await base.write(0, new Uint8Array(1 << 20).fill(7));
  }
  const overlay = { filename: '/top.vdi', format: 'vdi', backingFile: '/base.vdi', backingFormat: 'vdi', options: {} };
  await createImage(graph, overlay);
  return graph;
}

test('BL-OPEN-24: what is read below is stored in the image, as long as someone asked for it', async () => {
  const graph = await chain();
  await using plain = await graph.open('/top.vdi', { writable: true, nodeName: 'top' });
  expect((await plain.read(0, 512))[0]).toBe(7);
  expect(await plain.status(0, 512)).toMatchObject({ depth: 1 });
  {
    await using copying = await graph.openReference('top', { copyOnRead: true });
    expect((await copying.read(0, 512))[0]).toBe(7);
    expect(copying.node.copyOnRead).toBe(1);
  }
  expect(plain.node.copyOnRead).toBe(0);
  expect(await plain.status(0, 512)).toMatchObject({ depth: 0, data: true });
});

test('BL-OPEN-24: a read-only image cannot', async () => {
  const graph = await chain();
  await expect(graph.open('/top.vdi', { copyOnRead: true })).rejects.toMatchObject({
    code: 'EINVAL',
    message: "Can't use copy-on-read on read-only device",
  });
  expect(graph.nodes()).toEqual([]);
});

test('BL-REOPEN-4: nor can an image become read-only while someone asks for it', async () => {
  const graph = await chain();
  await using disk = await graph.open('/top.vdi', { writable: true, copyOnRead: true, nodeName: 'top' });
  await expect(graph.reopen([{ node: disk, options: { 'read-only': true } }])).rejects.toThrow(
    "Can't set node 'top' to r/o with copy-on-read enabled",
  );
});
