/** Chains of images with known content on a simulated host. */
import { createImage } from '../../src/core/create.ts';
import type { Disk, OpenOptions } from '../../src/core/disk.ts';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { SimHost, type SimHostOptions } from '../../src/testing/index.ts';
import { bytesWith, contentOf, makeImage, same, type World } from './job-disks.ts';

export const KIB = 1024;
export const MIB = 1024 * KIB;

export function chainWorld(options: SimHostOptions = {}): World {
  const host = new SimHost(options);
  return { host, graph: new Graph({ host, drivers: DRIVERS }) };
}

export interface Layer {
  readonly size: number;
  /** Offset and length of what is written, whole clusters of 64 KiB or parts; `zero`: as zeroes. */
  readonly writes?: readonly (readonly [number, number, 'zero'?])[];
}

/** Images `/base.raw`, `/1.img`, `/2.img` …, each over the one before. Returns the names. */
export async function makeChain(graph: Graph, base: Layer, ...layers: readonly Layer[]): Promise<string[]> {
  const names = ['/base.raw'];
  const runs = (base.writes ?? []).map(([offset, length]) => [offset, length] as const);
  await makeImage(graph, '/base.raw', 'raw', bytesWith(base.size, runs, 99));
  for (const [index, layer] of layers.entries()) {
    const filename = `/${index + 1}.img`;
    const format = index === 0 ? 'raw' : 'qcow2';
    const below = { backing_file: (names.at(-1) ?? '').slice(1), backing_fmt: format };
    await createImage(graph, { filename, format: 'qcow2', options: { ...below, size: layer.size } });
    const disk = await graph.open(filename, { format: 'qcow2', writable: true });
    for (const [offset, length, zero] of layer.writes ?? []) {
      if (zero) await disk.writeZeroes(offset, length);
      else await disk.write(offset, bytesWith(length, [[0, length]], index * 1000 + offset));
    }
    await disk.close();
    names.push(filename);
  }
  return names;
}

/** What an image of a chain reads as, with zeroes to fill up to `length` if that is longer. */
export async function read(graph: Graph, name: string, length = 0): Promise<Uint8Array> {
  const bytes = await contentOf(graph, name, name.endsWith('.raw') ? 'raw' : 'qcow2');
  if (bytes.length >= length) return bytes;
  const longer = new Uint8Array(length);
  longer.set(bytes);
  return longer;
}

export function open(graph: Graph, name: string, options: OpenOptions = {}): Promise<Disk> {
  return graph.open(name, { format: name.endsWith('.raw') ? 'raw' : 'qcow2', writable: true, ...options });
}

export { same };
