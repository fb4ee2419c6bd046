/** How often clusters are used, counted anew: a byte each, and a map for those that are used very often (Q-CHK-7); marks of clusters. */

const BYTE_MAX = 255;

export class ReferenceCounts {
  readonly from: number;
  readonly #to: number;
  readonly #end: number;
  readonly #bytes: Uint8Array;
  readonly #more = new Map<number, number>();

  /** Clusters [from, to) of the image file are counted. `withNext`: the one behind them too, where it is used. */
  constructor(from: number, to: number, withNext = false) {
    this.from = from;
    this.#to = to;
    this.#end = withNext ? to + 1 : to;
    this.#bytes = new Uint8Array(Math.max(0, this.#end - from));
  }

  /** The cluster behind the last that is counted. */
  get to(): number {
    return this.#end > this.#to && this.get(this.#to) > 0 ? this.#end : this.#to;
  }

  get(cluster: number): number {
    const count = this.#bytes[cluster - this.from] ?? 0;
    return count < BYTE_MAX ? count : (this.#more.get(cluster) ?? BYTE_MAX);
  }

  /** One more use; a cluster outside the range is nothing. Returns the count. */
  add(cluster: number): number {
    const index = cluster - this.from;
    const count = (this.#bytes[index] ?? BYTE_MAX) + 1;
    if (count >= BYTE_MAX) return this.#addMany(cluster, index);
    this.#bytes[index] = count;
    return count;
  }

  /** One use less, of one that {@link add} has counted. */
  undo(cluster: number): void {
    const count = this.get(cluster) - 1;
    this.#more.delete(cluster);
    if (count >= BYTE_MAX) this.#more.set(cluster, count);
    this.#bytes[cluster - this.from] = Math.min(count, BYTE_MAX);
  }

  #addMany(cluster: number, index: number): number {
    if (cluster < this.from || cluster >= this.#end) return 0;
    const count = this.get(cluster) + 1;
    this.#more.set(cluster, count);
    this.#bytes[index] = BYTE_MAX;
    return count;
  }
}

/** A mark for each of the clusters [from, to), a bit. */
export class ClusterMarks {
  readonly #from: number;
  readonly #bits: Uint8Array;

  constructor(from: number, to: number) {
    this.#from = from;
    this.#bits = new Uint8Array(Math.ceil(Math.max(0, to - from) / 8));
  }

  has(cluster: number): boolean {
    const index = cluster - this.#from;
    return ((this.#bits[Math.floor(index / 8)] ?? 0) & (1 << (index & 7))) !== 0;
  }

  /** False: it had the mark before. One outside the range gets none. */
  add(cluster: number): boolean {
    if (this.has(cluster)) return false;
    const index = cluster - this.#from;
    const at = Math.floor(index / 8);
    this.#bits[at] = (this.#bits[at] ?? 0) | (1 << (index & 7));
    return true;
  }
}
