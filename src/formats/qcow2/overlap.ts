/** Which clusters of the image file hold metadata, so that no write destroys any (Q-CORR-2, Q-CORR-3). */

/** Classes of metadata, as bits. */
export const MetadataClass = {
  header: 1,
  activeL1: 2,
  activeL2: 4,
  refcountBlock: 8,
  refcountTable: 16,
  snapshotTable: 32,
  inactiveL1: 64,
  inactiveL2: 128,
  bitmapDirectory: 256,
  encryptionHeader: 512,
  /** Tables of bitmaps too. */
  bitmapData: 1024,
} as const;

/** Option names, in bit order, and what messages call them. */
export const OVERLAP_CLASSES = [
  { name: 'main-header', bit: MetadataClass.header, text: 'qcow2_header' },
  { name: 'active-l1', bit: MetadataClass.activeL1, text: 'active L1 table' },
  { name: 'active-l2', bit: MetadataClass.activeL2, text: 'active L2 table' },
  { name: 'refcount-table', bit: MetadataClass.refcountTable, text: 'refcount table' },
  { name: 'refcount-block', bit: MetadataClass.refcountBlock, text: 'refcount block' },
  { name: 'snapshot-table', bit: MetadataClass.snapshotTable, text: 'snapshot table' },
  { name: 'inactive-l1', bit: MetadataClass.inactiveL1, text: 'inactive L1 table' },
  { name: 'inactive-l2', bit: MetadataClass.inactiveL2, text: 'inactive L2 table' },
  { name: 'bitmap-directory', bit: MetadataClass.bitmapDirectory, text: 'bitmap directory' },
] as const;

const CONSTANT =
  MetadataClass.header |
  MetadataClass.activeL1 |
  MetadataClass.refcountTable |
  MetadataClass.snapshotTable |
  MetadataClass.bitmapDirectory |
  MetadataClass.encryptionHeader |
  MetadataClass.bitmapData;
const CACHED = CONSTANT | MetadataClass.activeL2 | MetadataClass.refcountBlock | MetadataClass.inactiveL1;

export const OVERLAP_TEMPLATES: Readonly<Record<string, number>> = {
  none: 0,
  constant: CONSTANT,
  cached: CACHED,
  all: CACHED | MetadataClass.inactiveL2,
};

export class MetadataMap {
  readonly #clusterSize: number;
  readonly #classes = new Map<number, number>();

  constructor(clusterSize: number) {
    this.#clusterSize = clusterSize;
  }

  /** Notes that a range belongs to a class. */
  add(metadataClass: number, offset: number, length: number): void {
    if (isNowhere(offset, length)) return;
    const last = Math.floor((offset + length - 1) / this.#clusterSize);
    for (let cluster = Math.floor(offset / this.#clusterSize); cluster <= last; cluster++) {
      this.#classes.set(cluster, (this.#classes.get(cluster) ?? 0) | metadataClass);
    }
  }

  remove(metadataClass: number, offset: number, length: number): void {
    if (isNowhere(offset, length)) return;
    const last = Math.floor((offset + length - 1) / this.#clusterSize);
    for (let cluster = Math.floor(offset / this.#clusterSize); cluster <= last; cluster++) {
      const rest = (this.#classes.get(cluster) ?? 0) & ~metadataClass;
      if (rest === 0) this.#classes.delete(cluster);
      else this.#classes.set(cluster, rest);
    }
  }

  /** Classes of `mask` that the range touches. */
  classesIn(offset: number, length: number, mask: number): number {
    if (mask === 0 || isNowhere(offset, length)) return 0;
    const last = Math.floor((offset + length - 1) / this.#clusterSize);
    let found = 0;
    for (let cluster = Math.floor(offset / this.#clusterSize); cluster <= last; cluster++) {
      const classes = this.#classes.get(cluster);
      if (classes !== undefined) found |= classes & mask;
    }
    return found;
  }
}

/** Past the safe integers there is no file, and counting clusters would not end. */
function isNowhere(offset: number, length: number): boolean {
  return length <= 0 || !Number.isSafeInteger(offset + length);
}

/** What a message calls the first of some classes. */
export function classText(classes: number): string {
  if ((classes & MetadataClass.encryptionHeader) !== 0) return 'encryption header';
  if ((classes & MetadataClass.bitmapData) !== 0) return 'bitmap data';
  return OVERLAP_CLASSES.find(({ bit }) => (classes & bit) !== 0)?.text ?? 'metadata';
}
