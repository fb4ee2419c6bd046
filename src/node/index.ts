/** Entry `diskwright/node`: the library on this machine's files. Everything of the main entry, and functions bound to one graph. */
import { type CreateRequest, createImage } from '../core/create.ts';
import type { Disk, OpenOptions } from '../core/disk.ts';
import { Graph } from '../core/graph.ts';
import type { NestedOptions } from '../core/options.ts';
import { DRIVERS } from '../drivers.ts';
import { nodeHost } from './host.ts';

export * from '../index.ts';
export { type NodeHostOptions, nodeHost } from './host.ts';

let shared: Graph | undefined;

/** The graph that the functions of this entry use: all drivers, on a {@link nodeHost} made at the first call. */
export function defaultGraph(): Graph {
  shared ??= new Graph({ host: nodeHost(), drivers: DRIVERS });
  return shared;
}

/** Opens a disk: `open('disk.vdi')`, `open('disk.vdi', { writable: true })`, or by an option tree. See {@link Graph.open}. */
export function open(source: string | NestedOptions, options: OpenOptions = {}): Promise<Disk> {
  return defaultGraph().open(source, options);
}

/** Makes an image: `create({ filename: 'disk.vdi', format: 'vdi', size: 10 * 2 ** 30 })`. See {@link createImage}. */
export function create(request: CreateRequest): Promise<void> {
  return createImage(defaultGraph(), request);
}
