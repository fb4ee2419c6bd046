/** Random operations on a {@link GraphWorld}: each either happens as a whole or fails with a BlockError and changes nothing. */
import { backingImage, chainOf, freezeChain, imagesOf, skipFilters } from '../../src/core/chain.ts';
import {
  append,
  changeBackingFile,
  dropIntermediate,
  insertFilter,
  removeFilter,
  replaceNode,
  setBacking,
} from '../../src/core/chain-change.ts';
import type { Disk } from '../../src/core/disk.ts';
import { BlockNode } from '../../src/core/node.ts';
import type { NestedOptions } from '../../src/core/options.ts';
import { reopen } from '../../src/core/reopen.ts';
import { snapshot } from '../../src/core/snapshot.ts';
import { BASES, type GraphWorld } from './graph-world.ts';

export interface Operation {
  readonly name: string;
  /** How often, beside the others. */
  readonly weight: number;
  /** Disks may read otherwise afterwards. */
  readonly changesData?: boolean;
  /** Undefined: nothing to do it with. Called at once; what it chooses is chosen by then. */
  plan(world: GraphWorld): { readonly text: string; run(): Promise<unknown> } | undefined;
}

function pickNode(world: GraphWorld, wanted: (node: BlockNode) => boolean = () => true): BlockNode | undefined {
  const nodes = world.graph.nodes().filter((node) => node.isOpen && !node.opening && wanted(node));
  return nodes.length === 0 ? undefined : world.random.pick(nodes);
}

const isLayer = ({ driver }: BlockNode) => driver.name === 'layer';
const isFilter = ({ driver }: BlockNode) => driver.kind === 'filter';
/** Another node there would not hold the image that a format has open; below an image, it would show the format's own bytes. */
const isBelowImage = (node: BlockNode): boolean =>
  node.parents.some(
    ({ parent, role }) => role === 'image' || (parent instanceof BlockNode && isFilter(parent) && isBelowImage(parent)),
  );
/** An image's file by itself, which a writer would spoil. */
const isImageFile = (node: BlockNode): boolean => {
  const { driver, filename, primary } = skipFilters(node);
  if (driver.name === 'raw' && primary !== undefined) return isImageFile(primary.node);
  return driver.name === 'file' && filename.endsWith('.layer');
};
const isData = (node: BlockNode) => !isBelowImage(node) && !isImageFile(node);

function pickDisk(world: GraphWorld, writable: boolean): Disk | undefined {
  const disks = [...world.disks.keys()].filter((disk) => disk.isOpen && (!writable || disk.writable));
  return disks.length === 0 ? undefined : world.random.pick(disks);
}

function imageOptions(world: GraphWorld, path: string): NestedOptions {
  const { random } = world;
  const driver = path.endsWith('.raw') ? 'raw' : 'layer';
  const node = pickNode(world, isData);
  const backing =
    driver === 'layer' && random.chance(0.2)
      ? { backing: random.chance(0.5) || node === undefined ? null : node.name }
      : {};
  return { driver, file: { driver: 'file', filename: path }, ...backing };
}

const openDisk: Operation = {
  name: 'open',
  weight: 8,
  plan(world) {
    const { random, graph } = world;
    if (world.disks.size >= 6) return undefined;
    const path = random.pick([...BASES, ...world.images]);
    const source = imageOptions(world, path);
    const reference = random.chance(0.3) ? pickNode(world) : undefined;
    const writable = random.chance(0.5) && (reference === undefined || !isImageFile(reference));
    const text = `open ${reference?.name ?? JSON.stringify(source)}${writable ? ' writable' : ''}`;
    return {
      text,
      async run() {
        const disk = await (reference === undefined
          ? graph.open(source, { writable })
          : graph.openReference(reference.name, { writable }));
        world.disks.set(disk, undefined);
      },
    };
  },
};

const closeDisk: Operation = {
  name: 'close',
  weight: 4,
  plan(world) {
    const disk = pickDisk(world, false);
    if (disk === undefined) return undefined;
    return {
      text: `close ${disk.nodeName}`,
      async run() {
        world.disks.delete(disk);
        await disk.close();
      },
    };
  },
};

const add: Operation = {
  name: 'add',
  weight: 4,
  plan(world) {
    const { random, graph } = world;
    if (world.held.length >= 4) return undefined;
    const node = pickNode(world);
    const pass = random.chance(0.4) && node !== undefined ? { driver: 'pass', file: node.name } : undefined;
    const source = pass ?? imageOptions(world, random.pick([...BASES, ...world.images]));
    const readOnly = random.chance(0.3) ? { 'read-only': true } : {};
    return {
      text: `add ${JSON.stringify(source)}`,
      run: async () => void world.held.push(await graph.add({ ...source, ...readOnly })),
    };
  },
};

const release: Operation = {
  name: 'release',
  weight: 3,
  plan(world) {
    const index = world.held.findIndex((node) => world.frozen.every(({ top }) => top !== node));
    const node = world.held[index];
    if (node === undefined) return undefined;
    return {
      text: `release ${node.name}`,
      async run() {
        const at = world.held.indexOf(node);
        if (at < 0) return;
        world.held.splice(at, 1);
        await world.graph.release(node);
      },
    };
  },
};

const insert: Operation = {
  name: 'insert filter',
  weight: 4,
  plan(world) {
    const node = pickNode(world);
    if (node === undefined || chainOf(node).length > 12) return undefined;
    return { text: `insert over ${node.name}`, run: () => insertFilter(world.graph, node, { driver: 'pass' }) };
  },
};

const remove: Operation = {
  name: 'remove filter',
  weight: 3,
  plan(world) {
    const node = pickNode(world, isFilter);
    return node && { text: `remove ${node.name}`, run: () => removeFilter(world.graph, node) };
  },
};

const replace: Operation = {
  name: 'replace',
  weight: 2,
  changesData: true,
  plan(world) {
    const [from, to] = [pickNode(world), pickNode(world, isData)];
    if (from === undefined || to === undefined) return undefined;
    return isBelowImage(from)
      ? undefined
      : { text: `replace ${from.name} by ${to.name}`, run: () => replaceNode(world.graph, from, to) };
  },
};

const appendOverlay: Operation = {
  name: 'append',
  weight: 3,
  changesData: true,
  plan(world) {
    const overlay = pickNode(world, (node) => isLayer(node) && node.backing === undefined);
    const top = pickNode(world, isData);
    if (overlay === undefined || top === undefined || chainOf(top).length > 12) return undefined;
    return { text: `append ${overlay.name} to ${top.name}`, run: () => append(world.graph, overlay, top) };
  },
};

const takeSnapshot: Operation = {
  name: 'snapshot',
  weight: 2,
  plan(world) {
    const top = pickNode(world, isData);
    if (top === undefined || chainOf(top).length > 12 || world.images.length > 14) return undefined;
    const filename = world.newImageName();
    return {
      text: `snapshot of ${top.name} in ${filename}`,
      async run() {
        await snapshot(world.graph, top, filename, { format: 'layer', createOptions: { cluster: 1024 } });
        world.images.push(filename);
      },
    };
  },
};

const changeBacking: Operation = {
  name: 'set backing',
  weight: 4,
  changesData: true,
  plan(world) {
    const node = pickNode(world, isLayer) ?? pickNode(world);
    const target = world.random.chance(0.2) ? undefined : pickNode(world, isData);
    if (node === undefined) return undefined;
    return { text: `backing of ${node.name}: ${target?.name}`, run: () => setBacking(world.graph, node, target) };
  },
};

const drop: Operation = {
  name: 'drop intermediate',
  weight: 3,
  changesData: true,
  plan(world) {
    const active = pickNode(world, (node) => backingImage(node) !== undefined);
    if (active === undefined) return undefined;
    const top = world.random.pick(chainOf(active));
    const base = world.random.pick(chainOf(top).filter((node) => node === top || isData(node)));
    const text = world.random.chance(0.2) ? 'x'.repeat(400) : undefined;
    return {
      text: `drop ${top.name} to above ${base.name} from ${active.name}`,
      run: () => dropIntermediate(world.graph, active, top, base, text),
    };
  },
};

const header: Operation = {
  name: 'change backing file',
  weight: 2,
  // Of a disk that is open on the file itself.
  changesData: true,
  plan(world) {
    const node = pickNode(world, isLayer);
    const { random } = world;
    const reference = random.pick([
      undefined,
      { filename: '/base0.raw', format: 'raw' },
      { filename: '', format: 'raw' },
    ]);
    return node && { text: `header of ${node.name}`, run: () => changeBackingFile(world.graph, node, reference) };
  },
};

function reopenOptions(world: GraphWorld, node: BlockNode): NestedOptions {
  const { random } = world;
  const options: Record<string, string | number | boolean | null> = {};
  if (random.chance(0.5)) options['read-only'] = random.chance(0.5);
  if (random.chance(0.2)) options['file.read-only'] = random.chance(0.5);
  if (random.chance(0.2)) options['cache.no-flush'] = random.chance(0.5);
  if (isLayer(node) && random.chance(0.4)) options.label = `label ${random.below(5)}`;
  if (isLayer(node) && random.chance(0.05)) options.fixed = random.below(3);
  if (isLayer(node) && random.chance(0.3))
    options.backing = random.chance(0.3) ? null : (pickNode(world, isData)?.name ?? null);
  else if (random.chance(0.1)) options['backing.read-only'] = random.chance(0.5);
  if (isFilter(node) && !isBelowImage(node) && random.chance(0.3)) options.file = pickNode(world, isData)?.name ?? null;
  return options;
}

const reopenSome: Operation = {
  name: 'reopen',
  weight: 10,
  changesData: true,
  plan(world) {
    const count = world.random.between(1, 3);
    const nodes = Array.from({ length: count }, () => pickNode(world)).filter((node) => node !== undefined);
    if (nodes.length === 0) return undefined;
    const requests = nodes.map((node) => ({
      node,
      options: reopenOptions(world, node),
      reset: world.random.chance(0.05),
    }));
    const text = `reopen ${requests.map(({ node, options }) => `${node.name} ${JSON.stringify(options)}`).join('; ')}`;
    return { text, run: () => reopen(world.graph, requests) };
  },
};

const freeze: Operation = {
  name: 'freeze',
  weight: 2,
  plan(world) {
    const top = pickNode(world, (node) => node.children.length > 0);
    if (world.frozen.length > 1) return { text: 'unfreeze', run: async () => world.unfreeze() };
    if (top === undefined) return undefined;
    const base = world.random.chance(0.5) ? undefined : world.random.pick(imagesOf(top));
    return {
      text: `freeze ${top.name} to ${base?.name}`,
      async run() {
        if (base !== undefined && !chainOf(top).includes(base)) return;
        const unfreeze = freezeChain(top, base === skipFilters(top) ? top : base);
        world.graph.hold(top);
        world.held.push(top);
        world.frozen.push({ top, unfreeze });
      },
    };
  },
};

const resize: Operation = {
  name: 'truncate',
  weight: 3,
  plan(world) {
    const disk = pickDisk(world, true);
    if (disk === undefined) return undefined;
    const length = world.random.between(4, 28) * 512;
    return {
      text: `truncate ${disk.nodeName} to ${length}`,
      async run() {
        const before = world.disks.get(disk);
        const others = [...world.disks.keys()].filter((other) => other !== disk);
        for (const other of [disk, ...others]) if (world.disks.has(other)) world.disks.set(other, undefined);
        await disk.resize(length, { shrink: true });
        if (before === undefined || !world.disks.has(disk)) return;
        const after = new Uint8Array(length);
        after.set(before.subarray(0, length));
        world.disks.set(disk, after);
      },
    };
  },
};

export const OPERATIONS: readonly Operation[] = [
  openDisk,
  closeDisk,
  add,
  release,
  insert,
  remove,
  replace,
  appendOverlay,
  takeSnapshot,
  changeBacking,
  drop,
  header,
  reopenSome,
  freeze,
  resize,
];

/** Starts a read, a write, a zeroing or a discard on each of some disks; they end while other things go on. */
export function startRequests(world: GraphWorld): Promise<unknown> {
  const { random } = world;
  const started: Promise<unknown>[] = [];
  for (const [disk, expected] of [...world.disks]) {
    if (!disk.isOpen || disk.length < 2048 || random.chance(0.4)) continue;
    const offset = random.below(disk.length - 1024);
    const length = random.between(1, 1024);
    if (!disk.writable) started.push(disk.read(offset, length));
    else if (random.chance(0.5)) started.push(write(world, disk, expected, offset, length));
    else started.push(random.chance(0.5) ? disk.flush() : disk.status(offset, length));
  }
  // The disk may be closed, or shorter, before it is its turn.
  return Promise.all(started.map((each) => each.catch(world.expected)));
}

async function write(
  world: GraphWorld,
  disk: Disk,
  expected: Uint8Array | undefined,
  offset: number,
  length: number,
): Promise<void> {
  const { random } = world;
  const data = new Uint8Array(length);
  const zero = random.chance(0.3);
  if (!zero) random.fill(data);
  for (const other of world.disks.keys()) if (other !== disk) world.disks.set(other, undefined);
  const known = expected?.slice();
  known?.set(data.subarray(0, Math.max(0, known.length - offset)), offset);
  world.disks.set(disk, known);
  try {
    await (zero ? disk.writeZeroes(offset, length, { unmap: random.chance(0.5) }) : disk.write(offset, data));
  } catch (error) {
    if (world.disks.has(disk)) world.disks.set(disk, undefined);
    throw error;
  }
}
