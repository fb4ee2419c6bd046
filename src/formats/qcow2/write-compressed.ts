/**
 * Compressed writes (Q-WR-9): clusters are compressed several at a time, get their storage in the order of the disk, and are
 * linked when their data are written.
 */
import { BlockError } from '../../core/errors.ts';
import { settled } from '../../core/gate.ts';
import type { Allocation } from './allocations.ts';
import { compressCluster } from './compress.ts';
import { corruption } from './corruption.ts';
import { type EntryWords, readEntry, releaseEntry, writeEntry } from './entries.ts';
import { allocateBytes, allocateClusters } from './free-space.ts';
import { CryptMethod } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { sliceToChange } from './l2-tables.ts';
import { requireNoOverlap } from './metadata-io.ts';
import { invalidPlace } from './refcount-growth.ts';
import { RELEASES_MAX } from './releases.ts';
import { compressedEntry, compressedLimit, type HostOffset, highWord, lowWord } from './tables.ts';
import { flush } from './write-back.ts';

/** Clusters of one request that are compressed ahead, and bytes of them; so many are written at a time, too. */
const AT_ONCE = 16;
const BYTES_AT_ONCE = 8 << 20;
const SECTOR = 512;
/** Buffers for compressed data that are kept for later writes. */
const KEPT_BUFFERS = 160;

/** Whole clusters; the last one may end with the disk, and is filled up with zeroes. */
export async function writeCompressed(image: Qcow2Image, offset: number, source: Uint8Array): Promise<void> {
  image.requireUsable();
  const { layout, header, node, gate } = image;
  if (layout.hasDataFile || header.cryptMethod !== CryptMethod.none) {
    const what = layout.hasDataFile ? 'with an external data file' : 'that are encrypted';
    throw new BlockError('ENOTSUP', `Compression is not supported in images ${what}`, { node });
  }
  const ticket = gate.closed ? await gate.enterWhenOpen() : gate.enter();
  try {
    await writeClusters(image, offset, source);
  } finally {
    gate.leave(ticket);
  }
  if (image.releases.count > RELEASES_MAX) await flush(image);
}

/** A cluster's bytes, and the same compressed in `target`: how many they are then, or -1 where that is no fewer. */
interface Packing {
  readonly cluster: Uint8Array;
  readonly target: Uint8Array;
  readonly compressed: Promise<number>;
}

async function writeClusters(image: Qcow2Image, offset: number, source: Uint8Array): Promise<void> {
  const { clusterSize } = image.layout;
  const atOnce = Math.max(1, Math.min(AT_ONCE, Math.floor(BYTES_AT_ONCE / clusterSize)));
  const ahead: Packing[] = [];
  let begun = 0;
  const begin = () => {
    if (begun >= source.length) return;
    const cluster = wholeCluster(source.subarray(begun, begun + clusterSize), clusterSize);
    const target = image.packBuffers.pop() ?? new Uint8Array(clusterSize - 1);
    const compressed = compressCluster(image, cluster, target);
    // Its turn, in which a failure shows, may come later.
    compressed.catch(() => {});
    ahead.push({ cluster, target, compressed });
    begun += clusterSize;
  };
  while (ahead.length < atOnce && begun < source.length) begin();
  const writing: Promise<void>[] = [];
  const put = (group: readonly Placed[]) => {
    if (group.length === 0) return;
    const stored = store(image, group);
    // Waited for below, maybe later.
    stored.catch(() => {});
    writing.push(stored);
  };
  try {
    await image.packLock.run(async () => {
      let group: Placed[] = [];
      try {
        for (let at = 0; at < source.length; at += clusterSize) {
          const packing = ahead.shift();
          if (packing === undefined) return;
          const placed = await place(image, offset + at, packing);
          begin();
          if (group.length < atOnce && follows(group.at(-1), placed)) group.push(placed);
          else {
            // At most two groups are being written, and one is being gathered.
            if (writing.length > 1) await writing.at(-2);
            put(group);
            group = [placed];
          }
        }
      } finally {
        put(group);
      }
    });
  } finally {
    await settled(writing);
    if (image.packBuffers.length > KEPT_BUFFERS) image.packBuffers.length = KEPT_BUFFERS;
  }
}

function wholeCluster(part: Uint8Array, clusterSize: number): Uint8Array {
  if (part.length === clusterSize) return part;
  const whole = new Uint8Array(clusterSize);
  whole.set(part);
  return whole;
}

/** Where a cluster is to be stored, and what names it then. */
interface Storage {
  readonly host: HostOffset;
  readonly bytes: Uint8Array;
  readonly entry: EntryWords;
}

/** Storage of a guest cluster that nobody else touches until it is linked. */
interface Placed extends Storage {
  readonly guest: number;
  readonly held: Allocation;
  /** To be used again when the data are written. */
  readonly target: Uint8Array;
}

async function place(image: Qcow2Image, guest: number, { cluster, target, compressed }: Packing): Promise<Placed> {
  const { allocations } = image;
  const end = guest + cluster.length;
  const length = await compressed;
  for (let other = allocations.overlapping(guest, end); other; other = allocations.overlapping(guest, end)) {
    await other.changed;
  }
  const held = allocations.begin(guest, end);
  try {
    // A new table goes before the data, not between those of two clusters.
    await sliceToChange(image, guest);
    const storage = await takeStorage(image, cluster, length < 0 ? undefined : target.subarray(0, length));
    return { guest, held, target, ...storage };
  } catch (error) {
    allocations.end(held);
    throw error;
  }
}

/** Whether data come right behind those of another cluster. */
function follows(last: Placed | undefined, { host }: Placed): boolean {
  return last !== undefined && last.host + last.bytes.length === host;
}

/** Data side by side, in one write, and then what names them. A failure leaves the mapping as it was. */
async function store(image: Qcow2Image, group: readonly Placed[]): Promise<void> {
  let linked = 0;
  try {
    await writeStored(image, group);
    for (; linked < group.length; linked++) await link(image, group[linked]);
  } catch (error) {
    for (const { host, bytes } of group.slice(linked)) {
      await image.refcounts.change(host, bytes.length, -1).catch(ignoreBlockError);
    }
    throw error;
  } finally {
    for (const { held, target } of group) {
      image.allocations.end(held);
      image.packBuffers.push(target);
    }
  }
}

/** What does not become shorter is stored as it is, in a cluster of its own. */
async function takeStorage(
  image: Qcow2Image,
  cluster: Uint8Array,
  compressed: Uint8Array | undefined,
): Promise<Storage> {
  const { refcounts, layout } = image;
  if (compressed !== undefined) {
    const host = await allocateBytes(refcounts, compressed.length);
    if (host === 0) throw await corruption(image, { fatal: true, text: invalidPlace('compressed cluster') });
    const { clusterBits } = layout;
    if (host < compressedLimit(clusterBits)) {
      const words = compressedEntry({ offset: host, length: compressed.length }, clusterBits);
      return { host, bytes: compressed, entry: { ...words, zero: 0, allocated: 0 } };
    }
    await refcounts.change(host, compressed.length, -1);
  }
  const host = await allocateClusters(refcounts, 1);
  if (host === 0) {
    const text = 'Preventing invalid allocation of data cluster at offset 0';
    throw await corruption(image, { fatal: true, text });
  }
  const allocated = layout.extended ? 0xffffffff : 0;
  return { host, bytes: cluster, entry: { high: highWord(host, true), low: lowWord(host), zero: 0, allocated } };
}

async function writeStored(image: Qcow2Image, group: readonly Placed[]): Promise<void> {
  const { file } = image;
  const [first, ...others] = group;
  if (first === undefined) return;
  let { bytes } = first;
  if (others.length > 0) {
    bytes = new Uint8Array(group.reduce((sum, each) => sum + each.bytes.length, 0));
    for (const each of group) bytes.set(each.bytes, each.host - first.host);
  }
  await requireNoOverlap(image, first.host, bytes.length, 0);
  for (const _each of group) {
    const event = image.raise('write_compressed');
    if (event !== undefined) await event;
  }
  if (!file.tryWriteNow(first.host, bytes)) await file.write(first.host, bytes);
}

async function link(image: Qcow2Image, placed: Placed | undefined): Promise<void> {
  if (placed === undefined) return;
  const { guest, entry } = placed;
  const event = image.raise('l2_update_compressed');
  if (event !== undefined) await event;
  const slice = await sliceToChange(image, guest);
  const old = readEntry(image, slice, guest);
  writeEntry(image, slice, guest, entry);
  releaseEntry(image, old, 'never');
}

function ignoreBlockError(error: unknown): void {
  if (!(error instanceof BlockError)) throw error;
}

/** A file ends with a whole sector, since compressed data are read by sectors. Called when no request is under way. */
export async function fillLastSector({ file, refcounts }: Qcow2Image): Promise<void> {
  const end = file.length();
  if (end === refcounts.packedEnd && end % SECTOR !== 0) await file.write(end, new Uint8Array(SECTOR - (end % SECTOR)));
}
