/** What is known of snapshots' L2 tables stays known when other structures get new places (Q-CORR-3). */
import { describe, expect, test } from 'vitest';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import type { Disk } from '../../core/disk.ts';
import { SimHost } from '../../testing/index.ts';

const CLUSTER = 4096;
const OFFSET = 0x00fffffffffffe00n;
const COPIED = 1n << 63n;
/** Of the header: refcount table, active L1 table, snapshot table. */
const FIELD = { refcounts: 48, l1: 40, snapshots: 64 } as const;

/** An image whose snapshot has an L2 table of its own. */
async function made(): Promise<SimHost> {
  const host = new SimHost({ record: false });
  const options = { cluster_size: CLUSTER };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: 1 << 20, options });
  await using disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
  await disk.write(0, new Uint8Array(2 * CLUSTER).fill(1));
  await disk.snapshots.create('s');
  await disk.write(0, new Uint8Array(CLUSTER).fill(2));
  return host;
}

function viewOf(host: SimHost): DataView {
  return new DataView(host.contents(PATH).buffer);
}

async function patch(host: SimHost, at: number, word: bigint): Promise<void> {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, word);
  const file = await host.files.open(PATH, { write: true });
  await file.write(at, bytes);
  await file.close();
}

/** Makes the second cluster of the disk name the snapshot's L2 table. */
async function crossLink(host: SimHost): Promise<void> {
  const view = viewOf(host);
  const table = (l1: bigint) => view.getBigUint64(Number(l1)) & OFFSET;
  const active = table(view.getBigUint64(FIELD.l1));
  const inactive = table(view.getBigUint64(Number(view.getBigUint64(FIELD.snapshots))));
  await patch(host, Number(active) + 8, inactive | COPIED);
}

const REBUILT = 'a new refcount structure';
const works: readonly (readonly [string, (disk: Disk) => Promise<unknown>])[] = [
  ['counts of another width', (disk) => disk.amend({ refcount_bits: 32 })],
  [
    REBUILT,
    async (disk) => {
      const lines: string[] = [];
      await disk.check({ repair: 'all', finding: (line) => void lines.push(line) });
      expect(lines).toContain('Rebuilding refcount structure');
    },
  ],
  ['another snapshot', (disk) => disk.snapshots.create('t')],
];

describe('overlap-check=all', () => {
  test.each(works)('after %s', async (what, work) => {
    const host = await made();
    // Without counts there is nothing that could be mended.
    if (what === REBUILT) await patch(host, Number(viewOf(host).getBigUint64(FIELD.refcounts)), 0n);
    const tree = { driver: 'qcow2', file: { driver: 'file', filename: PATH }, 'overlap-check': 'all' };
    const disk = await graphOn(host).open(tree, { writable: true });
    await work(disk);
    await disk.flush();
    await crossLink(host);
    const writing = disk.write(CLUSTER, new Uint8Array(512).fill(3));
    await expect(writing).rejects.toThrow('Preventing invalid write on metadata (overlaps with inactive L2 table)');
    await disk.close();
  });
});
