/** A disk in this process's memory: sparse, growable, and gone when it is closed. */
import { type DriverNode, defineProtocol, type Extent, NO_REOPEN_STEP, type TruncateOptions } from '../core/driver.ts';
import { BlockError, withErrno } from '../core/errors.ts';
import { option } from '../core/options.ts';

interface MemoryOptions {
  readonly size: number;
}

const PLAIN_NAME = 'memory://';

/** Bytes that are allocated together. */
export const MEMORY_PAGE = 64 * 1024;

export const memory = defineProtocol<MemoryOptions>({
  name: 'memory',
  summary: 'A sparse disk in memory',
  options: { size: option.size({ help: 'size in bytes; it grows when written past its end', fallback: 0 }) },
  strongOptions: ['size'],
  growable: true,
  parseFilename(filename) {
    if (filename === PLAIN_NAME) return {};
    throw new BlockError('EINVAL', `The only allowed filename for this driver is '${PLAIN_NAME}'`);
  },
  exactFilename: ({ size }) => (size === undefined ? PLAIN_NAME : undefined),
  async open({ options: { size }, node }) {
    if (size > Number.MAX_SAFE_INTEGER) {
      throw new BlockError('EFBIG', `size is larger than ${Number.MAX_SAFE_INTEGER} bytes`, { node });
    }
    return memoryNode(new Pages(size));
  },
});

function memoryNode(pages: Pages): DriverNode {
  const clear = async (offset: number, length: number, drop: boolean) => pages.clear(offset, offset + length, drop);
  return {
    length: () => pages.length,
    prepareReopen: async () => NO_REOPEN_STEP,
    read: async (offset, target) => pages.read(offset, target),
    tryReadNow(offset, target) {
      pages.read(offset, target);
      return true;
    },
    write: async (offset, source) => pages.write(offset, source),
    tryWriteNow(offset, source) {
      try {
        pages.write(offset, source);
        return true;
      } catch {
        // No memory: `write` says so.
        return false;
      }
    },
    writeZeroes(offset, length, { unmap }) {
      pages.length = Math.max(pages.length, offset + length);
      return clear(offset, length, unmap === true);
    },
    discard: (offset, length) => clear(offset, length, true),
    status: async (offset, length) => pages.extent(offset, length),
    tryStatusNow: (offset, length) => pages.extent(offset, length),
    truncate: async (length, options) => truncate(pages, length, options),
    allocatedSize: () => pages.allocated,
    zeroInit: () => true,
    close: async () => pages.clear(0, pages.length, true),
  };
}

function truncate(pages: Pages, length: number, { preallocation = 'off' }: TruncateOptions): void {
  if (preallocation !== 'off') throw new BlockError('ENOTSUP', `Unsupported preallocation mode: ${preallocation}`);
  if (length < pages.length) pages.clear(length, pages.length, true);
  pages.length = length;
}

/** The pages that were written, by their number. */
class Pages {
  length: number;
  readonly #pages = new Map<number, Uint8Array>();

  constructor(length: number) {
    this.length = length;
  }

  get allocated(): number {
    return this.#pages.size * MEMORY_PAGE;
  }

  read(offset: number, target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const start = (offset + done) % MEMORY_PAGE;
      const count = Math.min(MEMORY_PAGE - start, target.length - done);
      const page = this.#pages.get((offset + done - start) / MEMORY_PAGE);
      if (page === undefined) target.fill(0, done, done + count);
      else if (count === MEMORY_PAGE) target.set(page, done);
      else target.set(page.subarray(start, start + count), done);
      done += count;
    }
  }

  write(offset: number, source: Uint8Array): void {
    for (let done = 0; done < source.length; ) {
      const start = (offset + done) % MEMORY_PAGE;
      const count = Math.min(MEMORY_PAGE - start, source.length - done);
      const page = this.#page((offset + done - start) / MEMORY_PAGE);
      page.set(count === source.length ? source : source.subarray(done, done + count), start);
      done += count;
    }
    this.length = Math.max(this.length, offset + source.length);
  }

  #page(index: number): Uint8Array {
    const found = this.#pages.get(index);
    if (found !== undefined) return found;
    let page: Uint8Array;
    try {
      page = new Uint8Array(MEMORY_PAGE);
    } catch (cause) {
      throw withErrno('ENOMEM', `Cannot keep more than ${this.allocated} bytes in memory`, { cause });
    }
    this.#pages.set(index, page);
    return page;
  }

  /** Makes the range read as zeroes; whole pages are given back with `drop`. */
  clear(offset: number, end: number, drop: boolean): void {
    for (const index of this.#within(Math.floor(offset / MEMORY_PAGE), Math.ceil(end / MEMORY_PAGE))) {
      const start = Math.max(0, offset - index * MEMORY_PAGE);
      // Nothing is stored past the disk's end.
      const stop = end >= this.length ? MEMORY_PAGE : Math.min(MEMORY_PAGE, end - index * MEMORY_PAGE);
      if (drop && start === 0 && stop === MEMORY_PAGE) this.#pages.delete(index);
      else this.#pages.get(index)?.fill(0, start, stop);
    }
  }

  extent(offset: number, length: number): Extent {
    const first = Math.floor(offset / MEMORY_PAGE);
    const last = Math.ceil((offset + length) / MEMORY_PAGE);
    let end = first;
    if (this.#pages.has(first)) while (end < last && this.#pages.has(end)) end++;
    else end = this.#firstWithin(first, last);
    const run = Math.min(length, end * MEMORY_PAGE - offset);
    return { kind: this.#pages.has(first) ? 'data' : 'zero', length: run, at: { offset } };
  }

  /** Numbers of the pages there are from `first` to before `last`: in the time of the smaller of range and disk. */
  #within(first: number, last: number): number[] {
    const found: number[] = [];
    if (last - first > this.#pages.size) {
      for (const index of this.#pages.keys()) if (index >= first && index < last) found.push(index);
    } else {
      for (let index = first; index < last; index++) if (this.#pages.has(index)) found.push(index);
    }
    return found;
  }

  #firstWithin(first: number, last: number): number {
    let found = last;
    if (last - first > this.#pages.size) {
      for (const index of this.#pages.keys()) if (index >= first && index < found) found = index;
      return found;
    }
    for (let index = first; index < last; index++) if (this.#pages.has(index)) return index;
    return last;
  }
}
