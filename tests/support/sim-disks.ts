/** Disks of every kind on a simulated host, as subjects for trials, crashes and contracts. */
import { createImage } from '../../src/core/create.ts';
import type { Disk, OpenOptions } from '../../src/core/disk.ts';
import type { Graph } from '../../src/core/graph.ts';
import type { Host } from '../../src/core/host.ts';
import type { NestedOptions, OptionTree } from '../../src/core/options.ts';
import { secrets } from '../../src/crypto/secrets.ts';
import { nodeCrypto } from '../../src/node/crypto.ts';
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
  readonly format: 'raw' | 'vdi' | 'qcow2';
  /** The file beside the image that holds its data. */
  readonly dataFile?: string;
  /** Of an image that is encrypted. */
  readonly passphrase?: string;
  readonly blockSize: number;
  readonly lengthUnit: number;
  readonly resizable: boolean;
}

export function openKind(graph: Graph, kind: DiskKind, length: number, options: OpenOptions): Promise<Disk> {
  if (kind.passphrase !== undefined) {
    know(graph.host, kind.passphrase);
    const driverOptions = { 'encrypt.key-secret': SECRET };
    return graph.open(PATH, { format: kind.format, driverOptions, ...options });
  }
  if (kind.tree !== undefined) return graph.open(kind.tree(length), options);
  return graph.open(PATH, { format: kind.format, ...options });
}

function created(
  name: string,
  format: 'raw' | 'vdi' | 'qcow2',
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

const SECRET = 's0';

/** Lets disks on the host name the passphrase; with the system's ciphers, which are quick. */
function know(host: Host, passphrase: string): void {
  secrets(host).set(SECRET, passphrase);
  Object.assign(host, { crypto: nodeCrypto });
}

function luks(name: string, options: OptionTree, traits: { readonly blockSize: number }): DiskKind {
  const passphrase = 'open sesame';
  const all = { ...options, 'encrypt.format': 'luks', 'encrypt.key-secret': SECRET };
  return {
    ...created(name, 'qcow2', all, traits),
    passphrase,
    async make(host, length) {
      know(host, passphrase);
      await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: length, options: all });
    },
  };
}

/** Such images are not made any more: one without data becomes one by its header. */
function legacyAes(name: string, options: OptionTree, traits: { readonly blockSize: number }): DiskKind {
  return {
    ...created(name, 'qcow2', options, traits),
    passphrase: 'swordfish of more than sixteen bytes',
    async make(host, length) {
      await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: length, options });
      const file = await host.files.open(PATH, { write: true });
      await file.write(32, Uint8Array.of(0, 0, 0, 1));
      await file.flush();
      await file.close();
    },
  };
}

/** A file of data below, and an image that hides all of it or shows zeroes. */
const BELOW = '/below.raw';

function overlay(name: string, options: OptionTree, traits: { readonly blockSize: number }): DiskKind {
  const all = { ...options, backing_file: BELOW, backing_fmt: 'raw' };
  return {
    ...created(name, 'qcow2', all, traits),
    async make(host, length) {
      host.put(BELOW, length + 3 * 512);
      await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: length, options: all });
    },
  };
}

const DATA_FILE = '/disk.data';

export const QCOW2_KINDS: readonly DiskKind[] = [
  created('qcow2', 'qcow2', {}, { blockSize: 65536 }),
  created('qcow2, 512-byte clusters', 'qcow2', { cluster_size: 512 }, { blockSize: 512 }),
  created('qcow2, 1-bit counts', 'qcow2', { cluster_size: 512, refcount_bits: 1 }, { blockSize: 512 }),
  created('qcow2, 64-bit counts', 'qcow2', { cluster_size: 512, refcount_bits: 64 }, { blockSize: 512 }),
  created('qcow2, version 2', 'qcow2', { cluster_size: 1024, compat: '0.10' }, { blockSize: 1024 }),
  created('qcow2, subclusters', 'qcow2', { cluster_size: '16k', extended_l2: true }, { blockSize: 16384 }),
  created('qcow2, lazy refcounts', 'qcow2', { cluster_size: 4096, lazy_refcounts: true }, { blockSize: 4096 }),
  created('qcow2, preallocated', 'qcow2', { cluster_size: 4096, preallocation: 'metadata' }, { blockSize: 4096 }),
  created(
    'qcow2, subclusters, preallocated',
    'qcow2',
    { cluster_size: '16k', extended_l2: true, preallocation: 'metadata' },
    { blockSize: 16384 },
  ),
  {
    ...created('qcow2, data file', 'qcow2', { cluster_size: 4096, data_file: DATA_FILE }, { blockSize: 4096 }),
    dataFile: DATA_FILE,
  },
  {
    ...created(
      'qcow2, raw data file',
      'qcow2',
      { cluster_size: 4096, data_file: DATA_FILE, data_file_raw: true },
      { blockSize: 4096 },
    ),
    dataFile: DATA_FILE,
  },
  legacyAes('qcow2, AES', { cluster_size: 1024, compat: '0.10' }, { blockSize: 1024 }),
  overlay('qcow2 over zeroes', { cluster_size: 4096 }, { blockSize: 4096 }),
  overlay('qcow2 over zeroes, subclusters', { cluster_size: '16k', extended_l2: true }, { blockSize: 16384 }),
];

/** Slow to open, as they are meant to be. */
export const LUKS_KINDS: readonly DiskKind[] = [
  luks('qcow2, LUKS', { cluster_size: 4096 }, { blockSize: 4096 }),
  luks('qcow2, LUKS, subclusters', { cluster_size: '16k', extended_l2: true }, { blockSize: 16384 }),
  luks('qcow2, LUKS, preallocated', { cluster_size: 4096, preallocation: 'metadata' }, { blockSize: 4096 }),
];
