/** Changing the width of counts: a structure of the new width is made beside the old one, then takes its place (Q-AM-4). */
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import type { Progress } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { allocateClusters } from './free-space.ts';
import { encodeHeader, FIELD_AT, HEADER_BYTES } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { renewMetadata } from './inactive-tables.ts';
import { layoutOf, REFCOUNT_TABLE_BYTES_MAX } from './layout.ts';
import { writeHeaderField, writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { refcountWidth } from './refcount-width.ts';
import { type FreedRange, REFCOUNT_ENTRY_BYTES } from './refcounts.ts';
import type { HostOffset } from './tables.ts';
import { flushAll } from './write-back.ts';

/** Where the field of the order ends; it and those of the table are in one sector. */
const ORDER_END = 100;

/** Throws BlockError: EINVAL for a count that does not fit, ENOTSUP where the table would be too long. Changes nothing. */
export async function checkRefcountOrder(image: Qcow2Image, order: number): Promise<void> {
  const needed = await neededBlocks(image, order);
  tableClustersFor(image, needed);
}

/** Which blocks a structure of the width needs: those with any count, in order. */
async function neededBlocks(image: Qcow2Image, order: number): Promise<number[]> {
  const { refcounts, layout } = image;
  const { clusterSize, refcountsPerBlock } = layout;
  const perBlock = (clusterSize * 8) / 2 ** order;
  const { max } = refcountWidth(order);
  const needed: number[] = [];
  for (let old = 0; old < refcounts.table.length; old++) {
    const block = await refcounts.block(old);
    if (block === undefined) continue;
    for (let i = 0; i < refcountsPerBlock; i++) {
      const count = refcounts.width.get(block.view, i);
      if (count === 0) continue;
      const cluster = old * refcountsPerBlock + i;
      if (count > max) {
        const place = (cluster * clusterSize).toString(16);
        const text = `Cannot decrease refcount entry width to ${2 ** order} bits: Cluster at offset 0x${place} has a refcount of ${count}`;
        throw new BlockError('EINVAL', text, { node: image.node });
      }
      const index = Math.floor(cluster / perBlock);
      if (needed.at(-1) !== index) needed.push(index);
    }
  }
  return needed;
}

/** With room for half as many entries more. */
function tableClustersFor({ layout, node }: Qcow2Image, needed: readonly number[]): number {
  const entries = (needed.at(-1) ?? 0) + 1;
  const bytes = (clusters: number) => clusters * layout.clusterSize;
  const exact = Math.ceil((entries * REFCOUNT_ENTRY_BYTES) / layout.clusterSize);
  if (bytes(exact) > REFCOUNT_TABLE_BYTES_MAX) {
    throw new BlockError('ENOTSUP', 'The refcount table would be longer than 8 MiB', { node });
  }
  const spare = Math.ceil((entries * 1.5 * REFCOUNT_ENTRY_BYTES) / layout.clusterSize);
  return bytes(spare) > REFCOUNT_TABLE_BYTES_MAX ? exact : spare;
}

interface Reservation {
  /** Indexes of blocks, in order. */
  needed: number[];
  /** Clusters for them, and maybe some more. */
  readonly places: HostOffset[];
  table: FreedRange;
  /** All that was taken. */
  readonly taken: FreedRange[];
}

/** The new structure holds all counts of the old one, those of both structures too, when the header is switched to it. */
export async function changeRefcountOrder(
  image: Qcow2Image,
  order: number,
  progress: Progress | undefined,
): Promise<void> {
  const { header, refcounts, layout, releases } = image;
  const { clusterSize } = layout;
  await flushAll(image);
  const reserved = await reserve(image, order);
  let table: Float64Array<ArrayBuffer>;
  try {
    table = await writeStructure(image, order, reserved, progress);
  } catch (error) {
    for (const { offset, length } of reserved.taken) await refcounts.change(offset, length, -1).catch(() => {});
    throw error;
  }
  const old = [...refcounts.table].filter((offset) => offset !== 0);
  const oldTable = { offset: Number(header.refcountTableOffset), length: header.refcountTableClusters * clusterSize };
  await switchStructure(image, order, reserved.table);
  image.layout = layoutOf(header);
  refcounts.useStructure(table);
  await renewMetadata(image);
  releases.add(oldTable.offset, oldTable.length, 'other');
  for (const offset of old) releases.add(offset, clusterSize, 'other');
  const used = new Set(reserved.places.slice(0, reserved.needed.length));
  for (const offset of reserved.places) if (!used.has(offset)) releases.add(offset, clusterSize, 'other');
  await flushAll(image);
}

/** Takes clusters until taking them makes no more necessary. */
async function reserve(image: Qcow2Image, order: number): Promise<Reservation> {
  const { refcounts, layout } = image;
  const { clusterSize } = layout;
  const reserved: Reservation = { needed: [], places: [], table: { offset: 0, length: 0 }, taken: [] };
  const take = async (clusters: number): Promise<FreedRange> => {
    const range = { offset: await allocateClusters(refcounts, clusters), length: clusters * clusterSize };
    reserved.taken.push(range);
    return range;
  };
  const addPlaces = ({ offset, length }: FreedRange) => {
    for (let at = 0; at < length; at += clusterSize) reserved.places.push(offset + at);
  };
  try {
    for (;;) {
      reserved.needed = await neededBlocks(image, order);
      const tableClusters = tableClustersFor(image, reserved.needed);
      const fits = ((reserved.needed.at(-1) ?? 0) + 1) * REFCOUNT_ENTRY_BYTES <= reserved.table.length;
      const lacking = reserved.needed.length - reserved.places.length;
      if (fits && lacking <= 0) return reserved;
      // A table that has become too short will hold blocks.
      if (!fits) {
        addPlaces(reserved.table);
        reserved.table = await take(tableClusters);
      }
      if (lacking > 0) addPlaces(await take(lacking));
    }
  } catch (error) {
    for (const { offset, length } of reserved.taken) await refcounts.change(offset, length, -1).catch(() => {});
    throw error;
  }
}

async function writeStructure(
  image: Qcow2Image,
  order: number,
  { needed, places, table: place }: Reservation,
  progress: Progress | undefined,
): Promise<Float64Array<ArrayBuffer>> {
  const entries = new Float64Array(place.length / REFCOUNT_ENTRY_BYTES);
  const bytes = new Uint8Array(place.length);
  for (const [i, index] of needed.entries()) {
    const offset = places[i] ?? 0;
    await writeMetadata(image, MetadataClass.refcountBlock, offset, await blockOfOrder(image, order, index));
    entries[index] = offset;
    setU64(viewOf(bytes), index * REFCOUNT_ENTRY_BYTES, offset);
    progress?.(i + 1, needed.length);
  }
  await writeMetadata(image, MetadataClass.refcountTable, place.offset, bytes);
  await image.file.flush();
  return entries;
}

/** A block of the new width, from those of the old one. */
async function blockOfOrder({ refcounts, layout }: Qcow2Image, order: number, index: number): Promise<Uint8Array> {
  const { clusterSize, refcountsPerBlock } = layout;
  const width = refcountWidth(order);
  const perBlock = (clusterSize * 8) / 2 ** order;
  const bytes = new Uint8Array(clusterSize);
  const view = viewOf(bytes);
  const first = index * perBlock;
  const stop = Math.min(first + perBlock, refcounts.table.length * refcountsPerBlock);
  for (let cluster = first; cluster < stop; ) {
    const old = refcounts.blockIndex(cluster);
    const end = Math.min(stop, (old + 1) * refcountsPerBlock);
    const block = await refcounts.block(old);
    for (; block !== undefined && cluster < end; cluster++) {
      const count = refcounts.width.get(block.view, cluster % refcountsPerBlock);
      if (count > 0) width.set(view, cluster - first, count);
    }
    cluster = end;
  }
  return bytes;
}

/** Table and order of the header, in one write. */
async function switchStructure(image: Qcow2Image, order: number, { offset, length }: FreedRange): Promise<void> {
  const { header, layout } = image;
  const next = {
    refcountTableOffset: offset,
    refcountTableClusters: length / layout.clusterSize,
    refcountOrder: order,
  };
  const bytes = new Uint8Array(HEADER_BYTES + header.unknown.length);
  encodeHeader(bytes, { ...header, ...next });
  await writeHeaderField(image, FIELD_AT.refcountTable, bytes.subarray(FIELD_AT.refcountTable, ORDER_END));
  Object.assign(header, next);
}
