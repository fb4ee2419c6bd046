/** Decompressing all that is stored compressed, on demand (Q-CHK-6): several clusters side by side, few in memory. */
import { viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import { inactiveL1s, type NamedL1 } from './check-shared.ts';
import type { Walk } from './check-walk.ts';
import type { Qcow2Image } from './image.ts';
import { type CompressedPlace, compressedPlace, isCompressed } from './tables.ts';

/** Clusters that are decompressed together, and bytes of them; one is always taken. Two such batches are in memory. */
const TOGETHER = 64;
const BYTES_TOGETHER = 4 << 20;

interface Packed {
  readonly place: CompressedPlace;
  readonly guest: number;
}

/** Each that does not decompress is told with its guest range and counted as a corruption: nothing mends it. */
export async function testCompressed(walk: Walk): Promise<void> {
  const { image } = walk;
  // What was good when it was read last may be so no more.
  image.decompressed.forget();
  const seen = new Set<number>();
  await testBelow(walk, { l1: image.l1, name: undefined }, seen);
  for await (const inactive of inactiveL1s(image)) await testBelow(walk, inactive, seen);
  image.decompressed.forget();
}

/** `seen`: L2 tables that have been looked at; snapshots have most of them in common. */
async function testBelow(walk: Walk, { l1, name }: NamedL1, seen: Set<number>): Promise<void> {
  const { image } = walk;
  const { clusterSize, l2Reach } = image.layout;
  const most = Math.min(TOGETHER, Math.max(1, BYTES_TOGETHER / clusterSize));
  const table = new Uint8Array(clusterSize);
  let batch: Packed[] = [];
  let testing = Promise.resolve();
  const begin = async () => {
    await testing;
    testing = testBatch(walk, batch, name);
    // It is waited for in its turn.
    testing.catch(() => {});
    batch = [];
  };
  for (let index = 0; index < l1.entries; index++) {
    const offset = l1.l2Offset(index);
    if (!isReadable(image, offset) || seen.has(offset)) continue;
    if (image.snapshots.length > 0) seen.add(offset);
    walk.signal?.throwIfAborted();
    // One that cannot be read has been told of.
    if (!(await readInto(image, offset, table))) continue;
    for (const packed of packedIn(image, table, index * l2Reach)) {
      batch.push(packed);
      if (batch.length >= most) await begin();
    }
  }
  await begin();
  await testing;
}

function isReadable({ layout, file }: Qcow2Image, offset: number): boolean {
  return offset !== 0 && offset % layout.clusterSize === 0 && offset < file.length();
}

async function readInto({ file }: Qcow2Image, offset: number, target: Uint8Array): Promise<boolean> {
  try {
    await file.read(offset, target);
    return true;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return false;
  }
}

function* packedIn({ layout }: Qcow2Image, table: Uint8Array, guest: number): Generator<Packed> {
  const { entryBytes, clusterBits, clusterSize, hasDataFile } = layout;
  const view = viewOf(table);
  for (let at = 0; at < table.length && !hasDataFile; at += entryBytes) {
    const high = view.getUint32(at);
    if (!isCompressed(high)) continue;
    const place = compressedPlace(high, view.getUint32(at + 4), clusterBits);
    yield { place, guest: guest + (at / entryBytes) * clusterSize };
  }
}

async function testBatch(walk: Walk, batch: readonly Packed[], name: string | undefined): Promise<void> {
  const { image, report, signal } = walk;
  signal?.throwIfAborted();
  // Those past the end of the file have been told of.
  const there = batch.filter(({ place }) => place.offset < image.file.length());
  const results = await image.decompressed.getAll(there.map(({ place }) => place));
  for (const [index, result] of results.entries()) {
    const packed = there[index];
    if (packed === undefined) continue;
    walk.step(packed.place.length);
    if (result instanceof Uint8Array) continue;
    const where = rangeText(image, packed, name);
    if (await readInto(image, packed.place.offset, new Uint8Array(packed.place.length))) {
      walk.tell(`ERROR compressed cluster ${where} cannot be decompressed`);
      report.corruptions++;
    } else {
      walk.tell(`ERROR compressed cluster ${where} cannot be read`);
      report.checkErrors++;
    }
  }
}

function rangeText({ layout, length }: Qcow2Image, { place, guest }: Packed, name: string | undefined): string {
  const bytes = Math.max(1, Math.min(layout.clusterSize, guest < length ? length - guest : layout.clusterSize));
  const whose = name === undefined ? '' : ` of ${name}`;
  return `at host offset 0x${place.offset.toString(16)}, guest offset 0x${guest.toString(16)} length ${bytes}${whose},`;
}
