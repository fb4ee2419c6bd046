/** Images that are only read do without the refcount table, until they become writable or are checked. */
import { expect, test } from 'vitest';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import { SimHost } from '../../testing/index.ts';

const CLUSTER = 65536;

async function image(): Promise<SimHost> {
  const host = new SimHost({ record: false });
  const graph = graphOn(host);
  await createImage(graph, { filename: PATH, format: 'qcow2', size: 1 << 20, options: {} });
  const disk = await graph.open(PATH, { format: 'qcow2', writable: true });
  await disk.write(0, new Uint8Array(CLUSTER).fill(5));
  await disk.close();
  // The second cluster is the refcount table.
  host.faults.inject({ operation: 'read', code: 'EIO', offset: CLUSTER, length: CLUSTER });
  return host;
}

test('Q-HDR-5: a refcount table that cannot be read is met by who writes, not by who reads', async () => {
  const host = await image();
  const disk = await graphOn(host).open(PATH, { format: 'qcow2' });
  expect((await disk.read(0, 1))[0]).toBe(5);
  expect(await disk.status(0, CLUSTER)).toMatchObject({ zero: false });
  await disk.close();
  await expect(graphOn(host).open(PATH, { format: 'qcow2', writable: true })).rejects.toThrow(
    'Could not initialize refcount handling: Input/output error',
  );
});

test('Q-HDR-1, Q-HDR-5: one that is past the end of the file is no other', async () => {
  const host = await image();
  host.faults.clear();
  const file = await host.files.open(PATH, { write: true });
  const field = new Uint8Array(8);
  new DataView(field.buffer).setBigUint64(0, 1n << 40n);
  await file.write(48, field);
  await file.close();
  const disk = await graphOn(host).open(PATH, { format: 'qcow2' });
  expect((await disk.read(0, 1))[0]).toBe(5);
  await disk.close();
  await expect(graphOn(host).open(PATH, { format: 'qcow2', writable: true })).rejects.toThrow(
    'Could not initialize refcount handling: Input/output error',
  );
});

test('Q-OPT-6: a reopen for writing is refused then, and the disk stays as it was', async () => {
  const host = await image();
  const graph = graphOn(host);
  const disk = await graph.open(PATH, { format: 'qcow2' });
  const change = { node: disk.node, options: { 'read-only': false } };
  await expect(graph.reopen([change])).rejects.toMatchObject({ code: 'EIO' });
  expect(disk.writable).toBe(false);
  expect((await disk.read(0, 1))[0]).toBe(5);
  await disk.close();
});
