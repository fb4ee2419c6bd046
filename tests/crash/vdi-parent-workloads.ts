/** What is done to a differencing VDI while the power may go (V-24, V-50): the parent is full of data, and longer. */
import type { Disk } from '../../src/core/disk.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import type { RecordedDisk } from '../../src/testing/index.ts';
import { vdiImage } from '../support/vdi-image.ts';
import { PARENT, type Workload } from './vdi-workloads.ts';

type Recorded = RecordedDisk<Disk>;

const BLOCK = 4096;
const OVER: OptionTree = { 'block-size': BLOCK, 'data-align': 512, parent: PARENT };

/** So many blocks, each full of its number and one. */
const full = (blocks: number) => () =>
  vdiImage({ map: Array.from({ length: blocks }, (_, block) => block) }, { uuid: 1 });

function data(seed: number, length = BLOCK): Uint8Array {
  return operationData(seed, length);
}

/** What the parent has in a block. */
function parents(block: number): Uint8Array {
  return new Uint8Array(BLOCK).fill(block + 1);
}

export const PARENT_WORKLOADS: readonly Workload[] = [
  {
    name: 'parts of blocks written over a copy',
    size: 8 * BLOCK + 512,
    options: OVER,
    parent: full(12),
    async run(disk) {
      await disk.write(100, data(1, 200));
      await disk.write(2 * BLOCK - 50, data(2, BLOCK + 100));
      await disk.flush();
      await disk.write(5 * BLOCK + 512, data(3, 1024));
      await disk.write(300, data(4, 200));
      await disk.flush();
      await disk.write(8 * BLOCK + 10, data(5, 100));
    },
  },
  {
    name: 'parts of blocks written at one time, flushes between',
    size: 12 * BLOCK,
    options: OVER,
    parent: full(12),
    host: { seed: 7, latency: { min: 0, max: 9 } },
    async run(disk) {
      const some = (first: number, seed: number) =>
        Promise.all(Array.from({ length: 4 }, (_, i) => disk.write((first + i) * BLOCK + 512, data(seed + i, 1024))));
      await some(0, 10);
      await Promise.all([disk.flush(), some(4, 20)]);
      await disk.flush();
      await Promise.all([some(8, 30), disk.flush()]);
      await disk.flush();
    },
  },
  {
    name: 'blocks of the parent zeroed and discarded, whole and in part, and places used again',
    size: 10 * BLOCK,
    options: OVER,
    parent: full(10),
    before: (disk) => disk.write(BLOCK, data(50, 3 * BLOCK)),
    async run(disk) {
      await disk.writeZeroes(512, 2 * BLOCK, { unmap: true });
      await disk.discard(2 * BLOCK, 4 * BLOCK);
      await disk.flush();
      await disk.write(6 * BLOCK + 100, data(1, 100));
      await disk.write(2 * BLOCK + 100, data(2, 100));
      await disk.writeZeroes(7 * BLOCK + 512, BLOCK);
      await disk.flush();
      await disk.write(9 * BLOCK, new Uint8Array(BLOCK));
      await disk.discard(6 * BLOCK, BLOCK);
      await disk.write(8 * BLOCK + 1, data(3, 10));
      await disk.flush();
    },
  },
  {
    name: 'growing under a longer parent, shrinking, growing again',
    size: 3 * BLOCK + 512,
    options: OVER,
    parent: full(12),
    async run(disk) {
      await disk.truncate(6 * BLOCK + 1024);
      await disk.write(4 * BLOCK + 10, data(1, 50));
      await disk.flush();
      await disk.truncate(2 * BLOCK + 1024);
      await disk.flush();
      await disk.truncate(200 * BLOCK);
      await disk.write(150 * BLOCK, data(2));
      await disk.flush();
    },
  },
  {
    name: 'compaction under a parent that has some of it',
    size: 10 * BLOCK,
    options: OVER,
    parent: full(10),
    async before(disk) {
      for (const block of [7, 2, 5, 0, 9])
        await disk.write(block * BLOCK, block % 2 === 0 ? parents(block) : data(block));
      await disk.write(5 * BLOCK, new Uint8Array(BLOCK));
    },
    run: ({ disk }) => disk.compact(),
  },
  {
    name: 'emptying after a commit',
    size: 8 * BLOCK,
    options: OVER,
    parent: full(8),
    async before(disk) {
      for (const block of [3, 1, 6]) await disk.write(block * BLOCK, parents(block));
    },
    async run(disk) {
      await disk.disk.node.impl.makeEmpty?.();
      await disk.flush();
      await goOn(disk);
    },
  },
  {
    name: 'a base image that becomes a child',
    size: 8 * BLOCK,
    options: { 'block-size': BLOCK },
    parent: full(8),
    before: (disk) => disk.write(BLOCK, data(1, 2 * BLOCK)),
    async run(disk) {
      await changeParent(disk, PARENT);
      await goOn(disk);
    },
  },
  {
    name: 'a child that becomes a base image',
    size: 4 * BLOCK,
    options: OVER,
    parent: full(4),
    before: (disk) => disk.write(0, data(1, 4 * BLOCK)),
    async run(disk) {
      await disk.discard(BLOCK, BLOCK);
      await changeParent(disk, undefined);
      await goOn(disk);
    },
  },
];

/** Some writes, durable one after the other. */
async function goOn(disk: Recorded): Promise<void> {
  for (const block of [0, 2, 3]) {
    await disk.write(block * BLOCK + 100, data(block + 60, 700));
    await disk.flush();
  }
}

async function changeParent({ disk }: Recorded, filename: string | undefined): Promise<void> {
  await disk.node.impl.changeBacking?.(filename === undefined ? undefined : { filename, format: 'vdi' });
  await disk.flush();
}
