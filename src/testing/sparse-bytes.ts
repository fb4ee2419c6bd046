/** A long, mostly empty run of bytes in 4 KiB pages; copies share pages until one of them writes. */

export const PAGE_SIZE = 4096;

export interface SparseRun {
  readonly kind: 'data' | 'hole';
  readonly length: number;
}

export class SparseBytes {
  #length: number;
  readonly #pages: Map<number, Uint8Array>;
  /** Pages that no copy shares. */
  readonly #own = new Set<number>();

  constructor(length = 0, pages = new Map<number, Uint8Array>()) {
    this.#length = length;
    this.#pages = pages;
  }

  get length(): number {
    return this.#length;
  }

  /** Bytes of storage in use: whole pages. */
  get allocated(): number {
    return this.#pages.size * PAGE_SIZE;
  }

  /** Stored pages by index, not to be changed. */
  get pages(): ReadonlyMap<number, Uint8Array> {
    return this.#pages;
  }

  clone(): SparseBytes {
    this.#own.clear();
    return new SparseBytes(this.#length, new Map(this.#pages));
  }

  /** All of it. Holes are not written to the new buffer, so that the host need not give them memory. */
  bytes(): Uint8Array {
    const all = new Uint8Array(this.#length);
    for (const [index, page] of this.#pages) {
      const at = index * PAGE_SIZE;
      all.set(page.subarray(0, this.#length - at), at);
    }
    return all;
  }

  /** Fills `target` and returns how many bytes were there; the rest of it is untouched. */
  read(offset: number, target: Uint8Array): number {
    const count = Math.max(0, Math.min(target.length, this.#length - offset));
    let done = 0;
    while (done < count) {
      const at = offset + done;
      const inPage = at % PAGE_SIZE;
      const step = Math.min(PAGE_SIZE - inPage, count - done);
      const page = this.#pages.get(Math.floor(at / PAGE_SIZE));
      if (page === undefined) target.fill(0, done, done + step);
      else target.set(page.subarray(inPage, inPage + step), done);
      done += step;
    }
    return count;
  }

  /** Writes, growing when past the end. */
  write(offset: number, source: Uint8Array): void {
    let done = 0;
    while (done < source.length) {
      const at = offset + done;
      const inPage = at % PAGE_SIZE;
      const step = Math.min(PAGE_SIZE - inPage, source.length - done);
      this.#writable(Math.floor(at / PAGE_SIZE)).set(source.subarray(done, done + step), inPage);
      done += step;
    }
    this.#length = Math.max(this.#length, offset + source.length);
  }

  /** Zeroes a range within the length; whole pages are given back. */
  punch(offset: number, length: number): void {
    const end = Math.min(offset + length, this.#length);
    for (const index of this.#stored(offset, end)) {
      const from = Math.max(offset - index * PAGE_SIZE, 0);
      const to = Math.min(end - index * PAGE_SIZE, PAGE_SIZE);
      // What is past the end is zero already, so a last page is whole too.
      if (from === 0 && (to === PAGE_SIZE || end === this.#length)) this.#drop(index);
      else this.#writable(index).fill(0, from, to);
    }
  }

  /** Gives the range storage, keeping what it reads as; grows. */
  allocate(offset: number, length: number): void {
    if (length <= 0) return;
    const last = Math.floor((offset + length - 1) / PAGE_SIZE);
    for (let index = Math.floor(offset / PAGE_SIZE); index <= last; index++) {
      if (!this.#pages.has(index)) this.#writable(index);
    }
    this.#length = Math.max(this.#length, offset + length);
  }

  /** Makes the range zero and stored; grows. */
  zero(offset: number, length: number): void {
    this.punch(offset, length);
    this.allocate(offset, length);
  }

  truncate(length: number): void {
    if (length < this.#length) this.punch(length, this.#length - length);
    this.#length = length;
  }

  /** One run from `offset` on, at most `length` long; past the end is a hole. */
  run(offset: number, length: number): SparseRun {
    const first = Math.floor(offset / PAGE_SIZE);
    const limit = Math.ceil((offset + length) / PAGE_SIZE);
    const stored = this.#pages.has(first);
    let next = first + 1;
    if (stored) while (next < limit && this.#pages.has(next)) next++;
    else next = this.#stored((first + 1) * PAGE_SIZE, limit * PAGE_SIZE)[0] ?? limit;
    return { kind: stored ? 'data' : 'hole', length: Math.min(next * PAGE_SIZE - offset, length) };
  }

  /** Storage that writing the range would add. */
  missing(offset: number, length: number): number {
    if (length <= 0) return 0;
    const count = Math.ceil((offset + length) / PAGE_SIZE) - Math.floor(offset / PAGE_SIZE);
    return (count - this.#stored(offset, offset + length).length) * PAGE_SIZE;
  }

  /** Indices of stored pages that touch the range, ascending. Costs no more than what is stored. */
  #stored(offset: number, end: number): number[] {
    const first = Math.floor(offset / PAGE_SIZE);
    const limit = Math.ceil(end / PAGE_SIZE);
    const found: number[] = [];
    if (limit - first <= this.#pages.size) {
      for (let index = first; index < limit; index++) if (this.#pages.has(index)) found.push(index);
      return found;
    }
    for (const index of this.#pages.keys()) if (index >= first && index < limit) found.push(index);
    return found.sort((a, b) => a - b);
  }

  #writable(index: number): Uint8Array {
    const page = this.#pages.get(index);
    if (page !== undefined && this.#own.has(index)) return page;
    const fresh = page === undefined ? new Uint8Array(PAGE_SIZE) : page.slice();
    this.#pages.set(index, fresh);
    this.#own.add(index);
    return fresh;
  }

  #drop(index: number): void {
    this.#pages.delete(index);
    this.#own.delete(index);
  }
}
