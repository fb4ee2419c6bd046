/** Differencing VDIs and their parents on a simulated host, made without the driver. */
import type { Disk, OpenOptions } from '../../src/core/disk.ts';
import type { NestedOptions } from '../../src/core/options.ts';
import { SimHost, type SimHostOptions } from '../../src/testing/index.ts';
import { graphOn } from './sim-disks.ts';
import { readVdi, VDI_FIELDS, type VdiField, type VdiView } from './vdi-bytes.ts';
import { vdiImage } from './vdi-image.ts';

export const BASE = '/base.vdi';
export const CHILD = '/child.vdi';

export { type Uuids, vdiImage } from './vdi-image.ts';

export function hostWithFiles(files: Readonly<Record<string, Uint8Array>>, options: SimHostOptions = {}): SimHost {
  const host = new SimHost(options);
  for (const [path, bytes] of Object.entries(files)) host.put(path, bytes);
  return host;
}

/** A base with blocks of 1, 2, 3, 4, and a child over it with this map. */
export function pair(map: readonly number[], options: SimHostOptions = {}): SimHost {
  const base = vdiImage({ map: [0, 1, 2, 3] }, { uuid: 1 });
  return hostWithFiles({ [BASE]: base, [CHILD]: vdiImage({ map }, { uuid: 2, link: 1 }) }, options);
}

/** Opens the child or another source, writable unless said otherwise; works, closes. */
export async function withChild<T>(
  host: SimHost,
  work: (disk: Disk) => Promise<T>,
  options: OpenOptions = {},
  source: string | NestedOptions = CHILD,
): Promise<T> {
  const how =
    typeof source === 'string' ? { format: 'vdi', writable: true, ...options } : { writable: true, ...options };
  const disk = await graphOn(host).open(source, how);
  try {
    return await work(disk);
  } finally {
    await disk.close();
  }
}

/** What a guest sees. */
export function contentOf(host: SimHost, source: string | NestedOptions = CHILD): Promise<Uint8Array> {
  return withChild(host, (disk) => disk.read(0, disk.length), { writable: false }, source);
}

/** The file as the format's description reads it. */
export function storedIn(host: SimHost, path = CHILD): VdiView {
  return readVdi(host.contents(path));
}

/** First byte of the UUID in a header field. */
export function uuidIn(host: SimHost, field: VdiField, path = CHILD): number {
  return host.contents(path)[VDI_FIELDS[field]] ?? -1;
}

/** Code and message of a failure, or `none`. */
export async function refusal(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'none',
    (error: Error & { readonly code?: string }) => `${error.code} ${error.message}`,
  );
}

/** The text of a UUID of sixteen times one byte. */
export function uuidText(value: number): string {
  const byte = value.toString(16).padStart(2, '0');
  return [4, 2, 2, 2, 6].map((count) => byte.repeat(count)).join('-');
}
