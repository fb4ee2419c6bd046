/** The bitmaps that a qcow2 image keeps, read without the driver, straight from the format's description. */

export interface BitmapView {
  readonly name: string;
  /** Offset of the record in the file. */
  readonly recordAt: number;
  readonly tableAt: number;
  readonly tableEntries: number;
  readonly inUse: boolean;
  readonly auto: boolean;
  readonly granularity: number;
  /** Granules that are set. */
  readonly dirty: readonly number[];
}

export interface BitmapsView {
  /** The header's mark that bitmaps are up to date. */
  readonly valid: boolean;
  /** Offset of the extension's data; 0: there is none. */
  readonly extensionAt: number;
  readonly directoryAt: number;
  readonly bitmaps: readonly BitmapView[];
}

const BITMAPS = 0x23852875;

export function readBitmaps(bytes: Uint8Array): BitmapsView {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const u64 = (at: number) => Number(view.getBigUint64(at));
  const cluster = 2 ** view.getUint32(20);
  const size = u64(24);
  const valid = view.getUint32(4) >= 3 && (view.getUint32(92) & 1) === 1;
  let extensionAt = 0;
  for (let at = view.getUint32(100); view.getUint32(at) !== 0; at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8) {
    if (view.getUint32(at) === BITMAPS) extensionAt = at + 8;
  }
  if (extensionAt === 0) return { valid, extensionAt, directoryAt: 0, bitmaps: [] };
  const bitmaps: BitmapView[] = [];
  const directoryAt = u64(extensionAt + 16);
  const end = directoryAt + u64(extensionAt + 8);
  for (let at = directoryAt; at < end; ) {
    const [nameLength, extra] = [view.getUint16(at + 18), view.getUint32(at + 20)];
    const nameAt = at + 24 + extra;
    const [tableAt, tableEntries] = [u64(at), view.getUint32(at + 8)];
    const granularity = 2 ** view.getUint8(at + 17);
    bitmaps.push({
      name: new TextDecoder().decode(bytes.subarray(nameAt, nameAt + nameLength)),
      recordAt: at,
      tableAt,
      tableEntries,
      inUse: (view.getUint32(at + 12) & 1) !== 0,
      auto: (view.getUint32(at + 12) & 2) !== 0,
      granularity,
      dirty: dirtyGranules(bytes, view, { tableAt, tableEntries, cluster, count: Math.ceil(size / granularity) }),
    });
    at += Math.ceil((24 + extra + nameLength) / 8) * 8;
  }
  if (bitmaps.length !== view.getUint32(extensionAt)) throw new Error('the extension has another number of bitmaps');
  return { valid, extensionAt, directoryAt, bitmaps };
}

interface Table {
  readonly tableAt: number;
  readonly tableEntries: number;
  readonly cluster: number;
  readonly count: number;
}

function dirtyGranules(bytes: Uint8Array, view: DataView, { tableAt, tableEntries, cluster, count }: Table): number[] {
  const found: number[] = [];
  const perCluster = cluster * 8;
  for (let entry = 0; entry < tableEntries; entry++) {
    // The last cluster may be cut short.
    const word = tableAt + entry * 8 + 8 <= bytes.length ? Number(view.getBigUint64(tableAt + entry * 8)) : 0;
    for (let bit = 0; bit < perCluster && entry * perCluster + bit < count; bit++) {
      const isSet = word < 512 ? word === 1 : (((bytes[word + (bit >> 3)] ?? 0) >> (bit & 7)) & 1) === 1;
      if (isSet) found.push(entry * perCluster + bit);
    }
  }
  return found;
}
