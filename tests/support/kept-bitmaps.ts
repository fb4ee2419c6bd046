/** Images with bitmaps on a simulated host, what is in their files, and what is said of them. */
import { type AddBitmapOptions, bitmaps } from '../../src/bitmaps/bitmaps.ts';
import { createImage } from '../../src/core/create.ts';
import type { Disk, OpenOptions } from '../../src/core/disk.ts';
import { BlockError } from '../../src/core/errors.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { SimHost } from '../../src/testing/index.ts';
import { readBitmaps } from './qcow2-bitmaps.ts';
import { graphOn, PATH } from './sim-disks.ts';

export const KIB = 1024;
export const SIZE = 256 * KIB;

export async function made(options: OptionTree = {}, size = SIZE): Promise<SimHost> {
  const host = new SimHost({ record: false });
  const all = { cluster_size: 512, ...options };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size, options: all });
  return host;
}

export const open = (host: SimHost, options: OpenOptions = { writable: true }) =>
  graphOn(host).open(PATH, { format: 'qcow2', ...options });

/** An image that keeps bitmaps of these names, in which the first KiB is dirty. */
export async function keeping(names: readonly string[], options: OptionTree = {}, add: AddBitmapOptions = {}) {
  const host = await made(options);
  await using disk = await open(host);
  for (const name of names) await bitmaps(disk).add(name, { persistent: true, granularity: 512, ...add });
  await disk.write(0, new Uint8Array(KIB).fill(1));
  return host;
}

export const onDisk = (host: SimHost) => readBitmaps(host.contents(PATH));
export const flags = (host: SimHost) =>
  onDisk(host).bitmaps.map(({ inUse, auto }) => `${inUse ? 'i' : '-'}${auto ? 'a' : '-'}`);
export const areas = (disk: Disk, name: string) =>
  [...bitmaps(disk).dirtyAreas(name)].map(({ offset, length }) => [offset, length]);

export function patched(host: SimHost, at: number, bytes: readonly number[]): SimHost {
  const before = host.contents(PATH);
  const content = new Uint8Array(Math.max(before.length, at + bytes.length));
  content.set(before);
  content.set(bytes, at);
  const other = new SimHost({ record: false });
  other.put(PATH, content);
  return other;
}

export const bytesOf = (value: bigint, length: number) =>
  Array.from({ length }, (_, i) => Number((value >> BigInt(8 * (length - 1 - i))) & 0xffn));

/** What opening says. */
export async function refusal(host: SimHost, options?: OpenOptions): Promise<string> {
  try {
    await using _ = await open(host, options);
    return '';
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return error.message;
  }
}

export async function report(host: SimHost, repair: 'none' | 'leaks' | 'all' = 'none') {
  const lines: string[] = [];
  await using disk = await open(host, { checkOnly: true, writable: repair !== 'none' });
  const result = await disk.check({ repair, finding: (line) => void lines.push(line) });
  return { ...result, lines };
}
