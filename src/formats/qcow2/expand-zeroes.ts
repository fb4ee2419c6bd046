/** Zero clusters made ordinary ones, as version 2 has none (Q-AM-3). The disk and all snapshots hold the same as before. */
import { viewOf } from '../../bytes/big-endian.ts';
import type { Progress } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { allocateClusters } from './free-space.ts';
import { CryptMethod } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { type L2Visit, visitL2Tables, writeL2Table } from './l2-walk.ts';
import { requireNoOverlap } from './metadata-io.ts';
import { clusterKind, type HostOffset, highWord, Kind, lowWord, offsetOf } from './tables.ts';
import { write } from './write.ts';
import { flushAll } from './write-back.ts';

export async function expandZeroes(image: Qcow2Image, progress: Progress | undefined): Promise<void> {
  const total = image.l1.entries + image.snapshots.reduce((sum, { l1Entries }) => sum + l1Entries, 0);
  let done = 0;
  await visitL2Tables(image, async (table) => {
    await expandTable(image, table);
    progress?.(++done, total);
  });
  await flushAll(image);
}

/** Byte of each entry with the zero flag. */
function zeroEntries({ bytes }: L2Visit): number[] {
  const view = viewOf(bytes);
  const found: number[] = [];
  for (let at = 0; at < bytes.length; at += 8) {
    const kind = clusterKind(view.getUint32(at), view.getUint32(at + 4), false);
    if (kind === Kind.zeroPlain || kind === Kind.zeroAllocated) found.push(at);
  }
  return found;
}

async function expandTable(image: Qcow2Image, table: L2Visit): Promise<void> {
  const entries = zeroEntries(table);
  if (entries.length === 0) return;
  if (image.header.cryptMethod !== CryptMethod.none) return expandEncrypted(image, table, entries);
  const { refcounts, layout, releases } = image;
  const { clusterSize } = layout;
  // All that share the table share what it names.
  const users = await refcounts.get(table.offset / clusterSize);
  const view = viewOf(table.bytes);
  const fresh: number[] = [];
  for (const at of entries) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    const host = offsetOf(high, low);
    const isStored = host !== 0 && host % clusterSize === 0;
    if (isStored && (await refcounts.get(host / clusterSize)) === users) {
      await zeroCluster(image, host, clusterSize);
      view.setUint32(at + 4, lowWord(host));
      continue;
    }
    // What others use too holds their data: it is given up here.
    for (let i = 0; isStored && i < users; i++) releases.add(host, clusterSize, 'other');
    if (image.hasBacking) fresh.push(at);
    else setEntry(view, at, 0, 0);
  }
  await fillFresh(image, table, fresh, users);
  await refcounts.writeBack();
  await image.file.flush();
  await writeL2Table(image, table);
  await flushAll(image);
}

function setEntry(view: DataView, at: number, high: number, low: number): void {
  view.setUint32(at, high);
  view.setUint32(at + 4, low);
}

/** Storage side by side for entries that need some. */
async function fillFresh(image: Qcow2Image, table: L2Visit, entries: readonly number[], users: number): Promise<void> {
  if (entries.length === 0) return;
  const { refcounts, layout } = image;
  const { clusterSize } = layout;
  const view = viewOf(table.bytes);
  const length = entries.length * clusterSize;
  const place = await allocateClusters(refcounts, entries.length);
  if (users > 1) await refcounts.change(place, length, users - 1);
  await zeroCluster(image, place, length);
  for (const [i, at] of entries.entries()) {
    const host = place + i * clusterSize;
    setEntry(view, at, highWord(host, table.active && users === 1), lowWord(host));
  }
}

async function zeroCluster(image: Qcow2Image, host: HostOffset, length: number): Promise<void> {
  await requireNoOverlap(image, host, length, 0);
  // Past its end the file has no zeroes to write into.
  if (image.file.length() < host + length) await image.file.truncate(host + length);
  await image.file.writeZeroes(host, length);
}

/** Zeroes are data that must be encrypted; snapshots have been found to need none. */
async function expandEncrypted(
  image: Qcow2Image,
  { guest, active }: L2Visit,
  entries: readonly number[],
): Promise<void> {
  if (!active) throw new BlockError('ENOTSUP', ENCRYPTED_SNAPSHOT, { node: image.node });
  const { clusterSize } = image.layout;
  for (const at of entries) {
    const from = guest + (at / 8) * clusterSize;
    const length = Math.min(clusterSize, image.length - from);
    if (length > 0) await write(image, from, new Uint8Array(length));
  }
}

export const ENCRYPTED_SNAPSHOT = 'Cannot downgrade an encrypted image with zero clusters in its snapshots';

/** Whether the zero clusters of encrypted snapshots stand in the way. */
export function isEncryptedSnapshot({ header }: Qcow2Image, table: L2Visit): boolean {
  return header.cryptMethod !== CryptMethod.none && !table.active && zeroEntries(table).length > 0;
}
