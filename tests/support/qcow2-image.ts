/** qcow2 images on a simulated host, for tests of single rules: made, opened, patched, read without the driver. */
import { createImage } from '../../src/core/create.ts';
import type { Disk, OpenOptions } from '../../src/core/disk.ts';
import { Graph } from '../../src/core/graph.ts';
import type { NestedOptions, OptionTree } from '../../src/core/options.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { blkdebugOf } from '../../src/filters/blkdebug/control.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { SimHost } from '../../src/testing/index.ts';
import { type Qcow2View, readQcow2 } from './qcow2-bytes.ts';

export const PATH = '/disk.img';
export const BASE = '/base.img';
export const DATA = '/disk.data';

/** `base`: content of a raw image below. */
export async function makeImage(
  options: OptionTree = {},
  {
    size = 1 << 20,
    base,
    host = new SimHost({ record: false }),
  }: { size?: number; base?: Uint8Array; host?: SimHost } = {},
): Promise<SimHost> {
  if (base !== undefined) host.put(BASE, base);
  const below = base === undefined ? {} : { backing_file: BASE, backing_fmt: 'raw' };
  const all = { ...options, ...below };
  await createImage(new Graph({ host, drivers: DRIVERS }), { filename: PATH, format: 'qcow2', size, options: all });
  return host;
}

/** Runtime options go beside the name. */
export function openDisk(
  host: SimHost,
  runtime: NestedOptions = {},
  how: OpenOptions = { writable: true },
): Promise<Disk> {
  const tree = { driver: 'qcow2', file: { driver: 'file', filename: PATH }, ...runtime };
  return new Graph({ host, drivers: DRIVERS }).open(tree, how);
}

/** Opens for writing, works, closes. */
export async function useDisk<T>(
  host: SimHost,
  work: (disk: Disk) => Promise<T>,
  runtime: NestedOptions = {},
): Promise<T> {
  const disk = await openDisk(host, runtime);
  try {
    return await work(disk);
  } finally {
    await disk.close();
  }
}

export function viewImage(host: SimHost): Qcow2View {
  return readQcow2(host.contents(PATH), host.exists(DATA) ? host.contents(DATA) : undefined);
}

/** Big-endian words of the image file. */
export function wordsAt(host: SimHost, offset: number, count = 1): bigint[] {
  const bytes = host.contents(PATH);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: count }, (_, i) => view.getBigUint64(offset + i * 8));
}

/** Writes words into the image file, past the driver. */
export async function patchWords(host: SimHost, offset: number, ...words: readonly bigint[]): Promise<void> {
  const bytes = new Uint8Array(words.length * 8);
  for (const [i, word] of words.entries()) new DataView(bytes.buffer).setBigUint64(i * 8, word);
  const file = await host.files.open(PATH, { write: true });
  await file.write(offset, bytes);
  await file.close();
}

/** Offset of the first L2 table, with the L1 table where creation puts it. */
export function firstL2(host: SimHost): number {
  const [l1 = 0n] = wordsAt(host, 40);
  return Number((wordsAt(host, Number(l1))[0] ?? 0n) & 0x00fffffffffffe00n);
}

export const some = (seed: number, length: number) => operationData(seed, length);

export interface Trail {
  readonly disk: Disk;
  /** Debug events, and the kinds of requests to the image file (`read`, `write`, `flush`, …), in order, of some work. */
  during(work: () => Promise<unknown>): Promise<string[]>;
}

/** The same through a filter that notes what comes by. */
export async function openTrail(host: SimHost, runtime: NestedOptions = {}): Promise<Trail> {
  const trail: string[] = [];
  const file = { driver: 'blkdebug', image: { driver: 'file', filename: PATH } };
  const disk = await new Graph({ host, drivers: DRIVERS }).open(
    { driver: 'qcow2', file, ...runtime },
    { writable: true },
  );
  const node = disk.node.child('file')?.node;
  if (node === undefined) throw new Error('the filter is open');
  const control = blkdebugOf(node);
  const { engine } = control;
  const raise = engine.event.bind(engine);
  engine.event = (name) => {
    // Those of the request path are not the driver's.
    if (!/^(pwritev|flush_to)/.test(name)) trail.push(name);
    return raise(name);
  };
  control.setScenario(({ type }) => {
    trail.push(type);
    return undefined;
  });
  return {
    disk,
    async during(work) {
      trail.length = 0;
      await work();
      return [...trail];
    },
  };
}

/** What guests see on the disk, and in each of its snapshots. */
export interface Contents {
  readonly disk: Uint8Array;
  readonly snapshots: readonly Uint8Array[];
}

export function contentsOf(host: SimHost): Contents {
  const view = viewImage(host);
  return { disk: view.content(), snapshots: view.snapshots.map((each) => each.content()) };
}
