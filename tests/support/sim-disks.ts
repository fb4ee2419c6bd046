/** Disks of every kind on a simulated host, as subjects for trials, crashes and contracts. */
import { createImage } from '../../src/core/create.ts';
import type { Disk, OpenOptions } from '../../src/core/disk.ts';
import type { Graph } from '../../src/core/graph.ts';
import type { NestedOptions, OptionTree } from '../../src/core/options.ts';

import type { SimHost } from '../../src/testing/index.ts';
import { graphOn } from './drivers.ts';
import { FREE, makeVdi, type VdiPlan, ZERO } from './vdi-bytes.ts';
import { vdiImage } from './vdi-image.ts';

export { graphOn };

export const PATH = '/disk.img';

/** One kind of disk: how it is made, and how it is opened. */
export interface DiskKind {
  readonly name: string;
  /** Puts an image of `length` bytes that reads as zeroes there. */
  make(host: SimHost, length: number): Promise<void>;
  /** Options to open it with; absent: by name, with `format`. */
  readonly tree?: (length: number) => NestedOptions;
  readonly format: 'raw' | 'vdi';
  readonly blockSize: number;
  readonly lengthUnit: number;
  readonly resizable: boolean;
}

export function openKind(graph: Graph, kind: DiskKind, length: number, options: OpenOptions): Promise<Disk> {
  if (kind.tree !== undefined) return graph.open(kind.tree(length), options);
  return graph.open(PATH, { format: kind.format, ...options });
}

function created(
  name: string,
  format: 'raw' | 'vdi',
  options: OptionTree,
  traits: Partial<DiskKind> & { readonly blockSize: number },
): DiskKind {
  return {
    name,
    format,
    lengthUnit: 512,
    resizable: true,
    make: async (host, length) => createImage(graphOn(host), { filename: PATH, format, size: length, options }),
    ...traits,
  };
}

/** An image made without the driver. */
function written(name: string, blockSize: number, plan: Omit<VdiPlan, 'diskSize' | 'blockSize'>): DiskKind {
  return {
    name,
    format: 'vdi',
    blockSize,
    lengthUnit: 512,
    resizable: true,
    async make(host, length) {
      host.put(PATH, makeVdi({ diskSize: length, blockSize, ...plan }));
    },
  };
}

const PARENT = '/parent.vdi';

/** A differencing image over one of zeroes, or one that hides a longer parent full of data (V-50). */
function differencing(name: string, blockSize: number, hides: boolean): DiskKind {
  return {
    name,
    format: 'vdi',
    blockSize,
    lengthUnit: 512,
    resizable: true,
    async make(host, length) {
      const size = hides ? length + 3 * blockSize : length;
      const full = { map: Array.from({ length: Math.ceil(size / blockSize) }, (_, block) => (hides ? block : FREE)) };
      host.put(PARENT, vdiImage({ diskSize: size, blockSize, ...full }, { uuid: 1 }));
      const map = Array.from({ length: Math.ceil(length / blockSize) }, () => (hides ? ZERO : FREE));
      host.put(PATH, vdiImage({ diskSize: length, blockSize, map }, { uuid: 2, link: 1 }));
    },
  };
}

export const RAW_KINDS: readonly DiskKind[] = [
  created('raw', 'raw', {}, { blockSize: 4096 }),
  {
    ...created('raw from an offset on', 'raw', {}, { blockSize: 4096 }),
    make: async (host, length) => host.put(PATH, length + 1536),
    tree: () => ({ driver: 'raw', offset: 1536, file: { driver: 'file', filename: PATH } }),
  },
  {
    ...created('raw window', 'raw', {}, { blockSize: 4096, resizable: false }),
    make: async (host, length) => host.put(PATH, length + 8192),
    tree: (length) => ({ driver: 'raw', offset: 512, size: length, file: { driver: 'file', filename: PATH } }),
  },
];

export const VDI_KINDS: readonly DiskKind[] = [
  created('vdi', 'vdi', {}, { blockSize: 1 << 20 }),
  created('vdi, 4 KiB blocks', 'vdi', { 'block-size': 4096 }, { blockSize: 4096 }),
  created('vdi, 16 KiB blocks', 'vdi', { 'block-size': '16k' }, { blockSize: 16384 }),
  created('vdi, static', 'vdi', { 'block-size': '8k', preallocation: 'metadata' }, { blockSize: 8192 }),
  created('vdi, full', 'vdi', { 'block-size': '8k', preallocation: 'full' }, { blockSize: 8192 }),
  written('vdi as old programs lay it out', 4096, { headerSize: 0x180 }),
  written('vdi with extra bytes before blocks', 4096, { blockExtra: 512 }),
  written('vdi with offsets between sectors', 8192, { mapOffset: 0x1f1, dataOffset: 0x1235 }),
  differencing('vdi over a parent of zeroes', 4096, false),
  differencing('vdi that hides its parent', 4096, true),
];
