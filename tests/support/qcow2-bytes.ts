/** qcow2 images read without the driver, straight from the format's description: content, and what is wrong with them. */
import { inflateRawSync } from 'node:zlib';
import type { Decrypt } from './luks-bytes.ts';

export interface Qcow2View {
  readonly size: number;
  readonly clusterSize: number;
  readonly version: number;
  readonly incompatible: bigint;
  /** Counts that are too low, references that cannot be, copied bits that lie. */
  readonly problems: string[];
  /** Clusters with counts above their references. */
  readonly leaks: number[];
  /** How often each cluster is used. */
  readonly references: ReadonlyMap<number, number>;
  /** L2 entries by guest cluster: the entry, and the bitmap of subclusters. */
  readonly entries: ReadonlyMap<number, { readonly entry: bigint; readonly bitmap: bigint }>;
  readonly snapshots: readonly SnapshotView[];
  /** What the disk holds, with `below` where nothing is stored; `decrypt`: of an encrypted image. */
  content(below?: Uint8Array, decrypt?: Decrypt): Uint8Array;
}

export interface SnapshotView {
  readonly id: string;
  readonly name: string;
  readonly size: number;
  readonly vmStateSize: number;
  content(below?: Uint8Array): Uint8Array;
}

type Entries = Map<number, { entry: bigint; bitmap: bigint }>;

const OFFSET = 0x00fffffffffffe00n;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;

export function readQcow2(bytes: Uint8Array, dataFile?: Uint8Array): Qcow2View {
  return new Reader(bytes, dataFile).view();
}

class Reader {
  readonly #bytes: Uint8Array;
  readonly #data: Uint8Array;
  readonly #view: DataView;
  readonly #problems: string[] = [];
  readonly #references = new Map<number, number>();
  readonly #bits: number;
  readonly #cluster: number;
  readonly #extended: boolean;
  readonly #external: boolean;

  constructor(bytes: Uint8Array, dataFile: Uint8Array | undefined) {
    this.#bytes = bytes;
    this.#data = dataFile ?? bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#bits = this.#u32(20);
    this.#cluster = 2 ** this.#bits;
    this.#extended = (this.#incompatible & 16n) !== 0n;
    this.#external = (this.#incompatible & 4n) !== 0n;
  }

  get #version(): number {
    return this.#u32(4);
  }

  get #incompatible(): bigint {
    return this.#version >= 3 ? this.#u64(72) : 0n;
  }

  #u32(at: number): number {
    return at + 4 <= this.#bytes.length ? this.#view.getUint32(at) : 0;
  }

  /** Behind the end of the file there are zeroes. */
  #u64(at: number): bigint {
    return at + 8 <= this.#bytes.length ? this.#view.getBigUint64(at) : 0n;
  }

  #use(offset: number, length: number, what: string): void {
    if (length === 0) return;
    if (Math.floor(offset / this.#cluster) * this.#cluster >= this.#bytes.length) {
      this.#problems.push(`${what} at ${offset} is past the end of the file`);
    }
    const last = Math.floor((offset + length - 1) / this.#cluster);
    for (let cluster = Math.floor(offset / this.#cluster); cluster <= last; cluster++) {
      this.#references.set(cluster, (this.#references.get(cluster) ?? 0) + 1);
    }
  }

  view(): Qcow2View {
    if (this.#u32(0) !== 0x514649fb) throw new Error('no qcow2 image');
    const size = Number(this.#u64(24));
    this.#use(0, this.#cluster, 'the header');
    this.#useEncryptionHeader();
    const l1Entries = this.#u32(36);
    const l1 = Number(this.#u64(40));
    const entries = this.#readL1(l1, l1Entries, 'the L1 table');
    const snapshots = this.#readSnapshots(size);
    const leaks = this.#compareCounts();
    this.#checkCopied(l1, l1Entries, entries);
    return {
      size,
      clusterSize: this.#cluster,
      version: this.#version,
      incompatible: this.#incompatible,
      problems: this.#problems,
      leaks,
      references: this.#references,
      entries,
      snapshots,
      content: (below, decrypt) => this.#content(entries, size, below, decrypt),
    };
  }

  #useEncryptionHeader(): void {
    if (this.#u32(32) !== 2) return;
    for (let at = this.#version < 3 ? 72 : this.#u32(100); ; ) {
      const type = this.#u32(at);
      if (type === 0) return void this.#problems.push('no encryption header');
      if (type === 0x0537be77) {
        const length = Math.ceil(Number(this.#u64(at + 16)) / this.#cluster) * this.#cluster;
        this.#use(Number(this.#u64(at + 8)), length, 'the encryption header');
        return;
      }
      at += 8 + Math.ceil(this.#u32(at + 4) / 8) * 8;
    }
  }

  #readL1(offset: number, count: number, what: string): Entries {
    const entries: Entries = new Map();
    this.#use(offset, count * 8, what);
    for (let i = 0; i < count; i++) this.#readL2(entries, i, this.#u64(offset + i * 8));
    return entries;
  }

  #readSnapshots(diskSize: number): SnapshotView[] {
    const start = Number(this.#u64(64));
    const views: SnapshotView[] = [];
    let at = start;
    for (let i = 0; i < this.#u32(60); i++) {
      at = Math.ceil(at / 8) * 8;
      const lengths = [this.#view.getUint16(at + 12), this.#view.getUint16(at + 14)] as const;
      const extra = this.#u32(at + 36);
      const idAt = at + 40 + extra;
      const nameAt = idAt + lengths[0];
      const text = (from: number, length: number) =>
        new TextDecoder().decode(this.#bytes.subarray(from, from + length));
      const size = extra >= 16 ? Number(this.#u64(at + 48)) : diskSize;
      const id = text(idAt, lengths[0]);
      const entries = this.#readL1(Number(this.#u64(at)), this.#u32(at + 8), `the L1 table of snapshot ${id}`);
      const content = (below?: Uint8Array) => this.#content(entries, size, below);
      const vmStateSize = extra >= 8 ? Number(this.#u64(at + 40)) : this.#u32(at + 32);
      views.push({ id, name: text(nameAt, lengths[1]), size, vmStateSize, content });
      at = nameAt + lengths[1];
    }
    this.#use(start, at - start, 'the snapshot table');
    return views;
  }

  #readL2(entries: Entries, index: number, l1Entry: bigint): void {
    const offset = Number(l1Entry & OFFSET);
    if (offset === 0) return;
    if ((l1Entry & ~(OFFSET | COPIED)) !== 0n) this.#problems.push(`L1 entry ${index} has reserved bits`);
    if (offset % this.#cluster !== 0) return void this.#problems.push(`L2 table at ${offset} is not aligned`);
    this.#use(offset, this.#cluster, `L2 table ${index}`);
    const bytes = this.#extended ? 16 : 8;
    const count = this.#cluster / bytes;
    for (let i = 0; i < count; i++) {
      const entry = this.#u64(offset + i * bytes);
      const bitmap = this.#extended ? this.#u64(offset + i * bytes + 8) : 0n;
      if (entry !== 0n || bitmap !== 0n) this.#readEntry(entries, index * count + i, entry, bitmap);
    }
  }

  #readEntry(entries: Entries, guest: number, entry: bigint, bitmap: bigint): void {
    entries.set(guest, { entry, bitmap });
    if ((entry & COMPRESSED) !== 0n) {
      const { offset, length } = this.#compressed(entry);
      this.#use(offset, length, `compressed cluster ${guest}`);
      if ((entry & COPIED) !== 0n) this.#problems.push(`compressed cluster ${guest} has the copied bit`);
      return;
    }
    const reserved = ~(OFFSET | COPIED | (this.#extended || this.#version < 3 ? 0n : 1n));
    if ((entry & reserved & ((1n << 64n) - 1n)) !== 0n) this.#problems.push(`L2 entry ${guest} has reserved bits`);
    const offset = Number(entry & OFFSET);
    const allocated = bitmap & 0xffffffffn;
    if ((allocated & (bitmap >> 32n)) !== 0n) this.#problems.push(`cluster ${guest} has subclusters both ways`);
    if (this.#external) {
      if (offset !== 0 && offset !== guest * this.#cluster) this.#problems.push(`cluster ${guest} is elsewhere`);
      return;
    }
    if (offset === 0) {
      if (allocated !== 0n) this.#problems.push(`cluster ${guest} has subclusters and no place`);
      return;
    }
    if (offset % this.#cluster !== 0) this.#problems.push(`cluster ${guest} at ${offset} is not aligned`);
    this.#use(offset, this.#cluster, `cluster ${guest}`);
  }

  #compressed(entry: bigint): { offset: number; length: number } {
    const x = BigInt(62 - (this.#bits - 8));
    const offset = Number(entry & ((1n << x) - 1n));
    const sectors = Number((entry & (COMPRESSED - 1n)) >> x);
    return { offset, length: (sectors + 1) * 512 - (offset % 512) };
  }

  #count(cluster: number): number {
    const order = this.#version >= 3 ? this.#u32(96) : 4;
    const bits = 2 ** order;
    const perBlock = (this.#cluster * 8) / bits;
    const table = Number(this.#u64(48));
    const index = Math.floor(cluster / perBlock);
    if (index * 8 >= this.#u32(56) * this.#cluster) return 0;
    const block = Number(this.#u64(table + index * 8));
    if (block === 0) return 0;
    const bit = (cluster % perBlock) * bits;
    const at = block + Math.floor(bit / 8);
    if (bits >= 8) {
      let value = 0n;
      for (let i = 0; i < bits / 8; i++) value = (value << 8n) | BigInt(this.#bytes[at + i] ?? 0);
      return Number(value);
    }
    return ((this.#bytes[at] ?? 0) >> (bit % 8)) & (2 ** bits - 1);
  }

  #compareCounts(): number[] {
    const table = Number(this.#u64(48));
    const tableBytes = this.#u32(56) * this.#cluster;
    this.#use(table, tableBytes, 'the refcount table');
    for (let i = 0; i < tableBytes / 8; i++) {
      const block = Number(this.#u64(table + i * 8));
      if (block !== 0) this.#use(block, this.#cluster, `refcount block ${i}`);
    }
    const end = Math.max(
      Math.ceil(this.#bytes.length / this.#cluster),
      ...[...this.#references.keys(), 0].map((k) => k + 1),
    );
    const leaks: number[] = [];
    const lazy = (this.#incompatible & 1n) !== 0n;
    for (let cluster = 0; cluster < end + 64; cluster++) {
      const count = this.#count(cluster);
      const used = this.#references.get(cluster) ?? 0;
      if (count < used && !lazy) this.#problems.push(`cluster ${cluster} has count ${count} and ${used} references`);
      if (count > used) leaks.push(cluster);
    }
    return leaks;
  }

  #checkCopied(l1: number, l1Entries: number, entries: Entries): void {
    if ((this.#incompatible & 1n) !== 0n) return;
    const lies = (value: bigint) => {
      const offset = Number(value & OFFSET);
      return (
        (value & COMPRESSED) === 0n &&
        offset !== 0 &&
        (value & COPIED) !== 0n &&
        this.#count(offset / this.#cluster) > 1
      );
    };
    for (let i = 0; i < l1Entries; i++)
      if (lies(this.#u64(l1 + i * 8))) this.#problems.push(`L1 entry ${i} is not alone`);
    if (this.#external) return;
    for (const [guest, { entry }] of entries) if (lies(entry)) this.#problems.push(`cluster ${guest} is not alone`);
  }

  #content(entries: Entries, size: number, below: Uint8Array | undefined, decrypt?: Decrypt): Uint8Array {
    const content = new Uint8Array(size);
    if (below !== undefined) content.set(below.subarray(0, size));
    for (const [guest, { entry, bitmap }] of entries) {
      const start = guest * this.#cluster;
      if (start >= size) continue;
      const whole = new Uint8Array(this.#cluster);
      whole.set(content.subarray(start, start + this.#cluster));
      this.#fill(whole, entry, bitmap, decrypt && { decrypt, guest: start });
      content.set(whole.subarray(0, Math.min(this.#cluster, size - start)), start);
    }
    return content;
  }

  #fill(target: Uint8Array, entry: bigint, bitmap: bigint, cipher?: { decrypt: Decrypt; guest: number }): void {
    if ((entry & COMPRESSED) !== 0n) {
      const { offset, length } = this.#compressed(entry);
      const source = this.#bytes.subarray(offset, offset + length);
      const plain = inflateRawSync(source, { finishFlush: 2 });
      target.set(plain.subarray(0, target.length));
      return;
    }
    const offset = Number(entry & OFFSET);
    const isStored = offset !== 0 || (this.#external && (entry & COPIED) !== 0n);
    const part = this.#extended ? this.#cluster / 32 : this.#cluster;
    for (let i = 0; i < this.#cluster / part; i++) {
      const bit = BigInt(i);
      const zero = this.#extended ? ((bitmap >> (32n + bit)) & 1n) === 1n : (entry & 1n) === 1n;
      const stored = this.#extended ? ((bitmap >> bit) & 1n) === 1n : isStored;
      const at = i * part;
      if (zero) target.fill(0, at, at + part);
      else if (stored) {
        target.fill(0, at, at + part);
        target.set(this.#data.subarray(offset + at, offset + at + part), at);
        for (let sector = at; cipher !== undefined && sector < at + part; sector += 512) {
          const stored = target.slice(sector, sector + 512);
          target.set(cipher.decrypt(stored, offset + sector, cipher.guest + sector), sector);
        }
      }
    }
  }
}
