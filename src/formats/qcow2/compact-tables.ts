/** Moving refcount blocks and L2 tables into holes, for a compaction. The caller is alone with the image. */
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import type { CompactWatch } from './compact.ts';
import { type Copy, copyBytes, giveUp, type Holes, type Originals } from './compact-holes.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES, L1Table } from './l1-table.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { REFCOUNT_ENTRY_BYTES } from './refcounts.ts';
import type { HostOffset } from './tables.ts';
import { flush } from './write-back.ts';

/** Tables that are moved before what names them is written. */
const BATCH = 256;
const L2_CLASSES = [MetadataClass.activeL2, MetadataClass.inactiveL2];

/** A cluster on its way. */
interface Move {
  readonly from: HostOffset;
  readonly to: HostOffset;
  /** References that the original has, and the copy gets. */
  readonly uses: number;
}

/** Counts a hole for a cluster that is to move there; undefined: there is none. */
async function moveTo(image: Qcow2Image, holes: Holes, from: HostOffset, uses: number): Promise<Move | undefined> {
  const { clusterSize } = image.layout;
  const hole = await holes.next();
  if (hole < 0) return undefined;
  await image.refcounts.change(hole * clusterSize, clusterSize, uses);
  return { from, to: hole * clusterSize, uses };
}

/** Makes copies and their counts durable. After a failure they are not counted any more. */
async function copyClusters(image: Qcow2Image, moves: readonly Move[]): Promise<void> {
  const { refcounts, layout, file } = image;
  const length = layout.clusterSize;
  try {
    await refcounts.writeBack();
    await copyBytes(
      image,
      moves.map(({ from, to }): Copy => ({ from, to, length })),
    );
    await file.flush();
  } catch (error) {
    for (const { to, uses } of moves) await refcounts.change(to, length, -uses).catch(() => {});
    throw error;
  }
}

function originals({ layout }: Qcow2Image, moves: Iterable<Move>): Originals[] {
  return Array.from(moves, ({ from, uses }) => ({ offset: from, length: layout.clusterSize, uses }));
}

/** Refcount blocks from the limit on. Resolves with how many were moved. */
export async function moveBlocks(image: Qcow2Image, holes: Holes): Promise<number> {
  let moved = 0;
  const { refcounts, layout } = image;
  const limit = holes.limit * layout.clusterSize;
  let batch: { readonly index: number; readonly move: Move }[] = [];
  for (let index = 0; index < refcounts.table.length; index++) {
    const from = refcounts.table[index] ?? 0;
    if (from < limit) continue;
    const move = await moveTo(image, holes, from, 1);
    if (move === undefined) break;
    batch.push({ index, move });
    moved++;
    if (batch.length < BATCH) continue;
    await carryBlocks(image, batch);
    batch = [];
  }
  await carryBlocks(image, batch);
  return moved;
}

async function carryBlocks(
  image: Qcow2Image,
  batch: readonly { readonly index: number; readonly move: Move }[],
): Promise<void> {
  if (batch.length === 0) return;
  const { refcounts, metadata, layout } = image;
  // Counts of these blocks are written before their copies are made, and change again only in the copies.
  await copyClusters(
    image,
    batch.map(({ move }) => move),
  );
  for (const { index, move } of batch) {
    await writeTableEntry(image, index, move.to);
    refcounts.table[index] = move.to;
    refcounts.cache.drop(move.from);
    metadata.remove(MetadataClass.refcountBlock, move.from, layout.clusterSize);
    metadata.add(MetadataClass.refcountBlock, move.to, layout.clusterSize);
  }
  await image.file.flush();
  await giveUp(
    image,
    originals(
      image,
      batch.map(({ move }) => move),
    ),
  );
}

async function writeTableEntry(image: Qcow2Image, index: number, block: HostOffset): Promise<void> {
  const entry = new Uint8Array(REFCOUNT_ENTRY_BYTES);
  setU64(viewOf(entry), 0, block);
  const at = Number(image.header.refcountTableOffset) + index * REFCOUNT_ENTRY_BYTES;
  await writeMetadata(image, MetadataClass.refcountTable, at, entry);
}

/** Refcount blocks behind the last used cluster that count nothing lose their place. Resolves with how many did. */
export async function dropEmptyBlocks(image: Qcow2Image): Promise<number> {
  let dropped = 0;
  const { refcounts, layout, metadata, file } = image;
  const { refcountsPerBlock, clusterSize } = layout;
  await flush(image);
  await refcounts.writeBack();
  await file.flush();
  for (let index = refcounts.table.length - 1; index > 0; index--) {
    const block = await refcounts.block(index);
    if (block === undefined) continue;
    if (refcounts.freeIn(index, block) < refcountsPerBlock) break;
    await writeTableEntry(image, index, 0);
    await file.flush();
    refcounts.forgetBlock(index);
    metadata.remove(MetadataClass.refcountBlock, block.offset, clusterSize);
    image.releases.add(block.offset, clusterSize, 'other');
    dropped++;
  }
  return dropped;
}

/** An L1 table as it is in the file. */
interface StoredL1 {
  readonly offset: HostOffset;
  readonly bytes: Uint8Array;
  readonly isActive: boolean;
}

/** All L1 tables, the active one first. */
async function* l1Tables(image: Qcow2Image): AsyncGenerator<StoredL1> {
  yield { offset: image.l1.offset, bytes: image.l1.bytes, isActive: true };
  for (const { l1Offset, l1Entries } of image.snapshots) {
    const bytes = new Uint8Array(l1Entries * L1_ENTRY_BYTES);
    await image.file.read(Number(l1Offset), bytes);
    yield { offset: Number(l1Offset), bytes, isActive: false };
  }
}

export interface L2Use {
  /** References in all L1 tables. */
  uses: number;
  /** The active L1 table is among them. */
  readonly isActive: boolean;
}

/** All L2 tables by their places, those of the active L1 table first. */
export async function l2Tables(image: Qcow2Image): Promise<Map<HostOffset, L2Use>> {
  const found = new Map<HostOffset, L2Use>();
  for await (const { offset, bytes, isActive } of l1Tables(image)) {
    const table = new L1Table(offset, bytes);
    for (let index = 0; index < table.entries; index++) {
      const l2 = table.l2Offset(index);
      const known = found.get(l2);
      if (known !== undefined) known.uses++;
      else if (l2 !== 0) found.set(l2, { uses: 1, isActive });
    }
  }
  return found;
}

/** L2 tables from the limit on. Resolves with how many were moved. */
export async function moveL2Tables(image: Qcow2Image, holes: Holes, { signal }: CompactWatch): Promise<number> {
  let moved = 0;
  const limit = holes.limit * image.layout.clusterSize;
  let batch = new Map<HostOffset, Move>();
  for (const [from, { uses }] of await l2Tables(image)) {
    if (from < limit) continue;
    const move = await moveTo(image, holes, from, uses);
    if (move === undefined) break;
    batch.set(from, move);
    moved++;
    if (batch.size < BATCH) continue;
    await carryL2Tables(image, batch);
    batch = new Map();
    signal?.throwIfAborted();
  }
  if (batch.size > 0) await carryL2Tables(image, batch);
  signal?.throwIfAborted();
  return moved;
}

async function carryL2Tables(image: Qcow2Image, batch: ReadonlyMap<HostOffset, Move>): Promise<void> {
  const { l2, layout, metadata, file } = image;
  const { clusterSize } = layout;
  await copyClusters(image, [...batch.values()]);
  for (const { from, to } of batch.values()) {
    for (let at = 0; at < clusterSize; at += l2.entryBytes) l2.drop(to + at);
    for (const each of L2_CLASSES) {
      if (metadata.classesIn(from, clusterSize, each) !== 0) metadata.add(each, to, clusterSize);
    }
  }
  for await (const table of l1Tables(image)) await redirectL1(image, table, batch);
  await file.flush();
  for (const move of batch.values()) {
    for (let at = 0; at < clusterSize; at += l2.entryBytes) l2.drop(move.from + at);
    for (const each of L2_CLASSES) metadata.remove(each, move.from, clusterSize);
  }
  await giveUp(image, originals(image, batch.values()));
}

/** Lets entries name the copies. */
async function redirectL1(image: Qcow2Image, stored: StoredL1, batch: ReadonlyMap<HostOffset, Move>): Promise<void> {
  const changed = new L1Table(stored.offset, stored.bytes.slice());
  let first = -1;
  let last = -1;
  for (let index = 0; index < changed.entries; index++) {
    const move = batch.get(changed.l2Offset(index));
    if (move === undefined) continue;
    changed.set(index, move.to, changed.isCopied(index));
    if (first < 0) first = index;
    last = index;
  }
  if (first < 0) return;
  const bytes = changed.bytes.subarray(first * L1_ENTRY_BYTES, (last + 1) * L1_ENTRY_BYTES);
  const at = stored.offset + first * L1_ENTRY_BYTES;
  await writeMetadata(image, stored.isActive ? MetadataClass.activeL1 : MetadataClass.inactiveL1, at, bytes);
  if (stored.isActive) image.l1.bytes.set(bytes, first * L1_ENTRY_BYTES);
}
