/** Disks with known content on a simulated host, for tests of jobs. */
import { createImage } from '../../src/core/create.ts';
import type { Disk, OpenOptions } from '../../src/core/disk.ts';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { SeededRandom, SimHost, type SimHostOptions } from '../../src/testing/index.ts';

export interface World {
  readonly host: SimHost;
  readonly graph: Graph;
}

export function world(options: SimHostOptions = {}): World {
  const host = new SimHost(options);
  return { host, graph: new Graph({ host, drivers: DRIVERS }) };
}

/** Bytes of a disk: `runs` of random data, by offset and length; the rest is zero. */
export function bytesWith(length: number, runs: readonly (readonly [number, number])[], seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  const random = new SeededRandom(seed);
  for (const [offset, count] of runs) {
    const run = bytes.subarray(offset, offset + count);
    random.fill(run);
    // No byte that could pass for a hole.
    run.forEach((byte, index) => {
      run[index] = byte || 1;
    });
  }
  return bytes;
}

/** Random runs of data and zeroes at multiples of 512. */
export function randomBytes(length: number, seed: number): Uint8Array {
  const random = new SeededRandom(seed);
  const runs: [number, number][] = [];
  for (let at = 0; at < length; ) {
    const run = 512 * (1 + random.below(random.chance(0.3) ? 4000 : 40));
    if (random.chance(0.5)) runs.push([at, run]);
    at += run;
  }
  return bytesWith(length, runs, seed);
}

export async function makeImage(graph: Graph, path: string, format: string, bytes: Uint8Array): Promise<void> {
  await createImage(graph, { filename: path, format, size: bytes.length });
  const disk = await graph.open(path, { format, writable: true });
  const piece = 4096;
  for (let at = 0; at < bytes.length; at += piece) {
    const part = bytes.subarray(at, at + piece);
    if (part.some((byte) => byte !== 0)) await disk.write(at, part);
  }
  await disk.close();
}

export async function contentOf(graph: Graph, path: string, format: string): Promise<Uint8Array> {
  const disk = await graph.open(path, { format });
  const bytes = await disk.read(0, disk.length);
  await disk.close();
  return bytes;
}

/** Opens, works, and closes whatever happens. */
export async function withDisk<T>(
  graph: Graph,
  path: string,
  options: OpenOptions,
  work: (disk: Disk) => Promise<T>,
): Promise<T> {
  const disk = await graph.open(path, options);
  try {
    return await work(disk);
  } finally {
    await disk.close();
  }
}

/** Whether two arrays hold the same bytes; quicker by far than a matcher on megabytes. */
export function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
