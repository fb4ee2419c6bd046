/**
 * Reserves storage ahead of writes past the end, for file systems where growing a file bit by bit is slow. What was
 * reserved and not used is cut off when the node is closed or becomes read-only.
 */
import { type DriverNode, defineFilter, type OpenContext } from '../core/driver.ts';
import { BlockError, codeOf } from '../core/errors.ts';
import { Mutex } from '../core/gate.ts';
import { invariant } from '../core/invariant.ts';
import { Link } from '../core/node.ts';
import { option } from '../core/options.ts';
import { Permission } from '../core/permissions.ts';

interface PreallocateOptions {
  readonly 'prealloc-align': number;
  readonly 'prealloc-size': number;
}

const SECTOR = 512;
const CHANGES = Permission.write | Permission.resize;

export const preallocate = defineFilter<PreallocateOptions>({
  name: 'preallocate',
  summary: 'Reserves storage ahead of writes that make a file longer',
  options: {
    'prealloc-align': option.size({
      help: 'length of the file to be a multiple of, with what is reserved',
      fallback: 1 << 20,
      reopen: true,
    }),
    'prealloc-size': option.size({
      help: 'how many bytes past the end of a write to reserve',
      fallback: 128 << 20,
      reopen: true,
    }),
  },
  async open(context) {
    checkOptions(context.options);
    return preallocating(context);
  },
});

function checkOptions(options: PreallocateOptions): void {
  if (options['prealloc-align'] % SECTOR !== 0) {
    const text = `prealloc-align parameter of preallocate filter is not aligned to ${SECTOR}`;
    throw new BlockError('EINVAL', text);
  }
}

function preallocating({ options, file, writable }: OpenContext<PreallocateOptions>): Partial<DriverNode> {
  invariant(file instanceof Link, 'a child is a link');
  const reserve = new Reserve(file, options);
  let active = writable;
  /** Runs a request that may end past what is there; if it succeeds, the disk is that long. */
  const growing = async (end: number, request: () => Promise<void>) => {
    if (active && end > reserve.length) await reserve.cover(end);
    await request();
    reserve.used(end);
  };
  return {
    length: () => reserve.length,
    write: (offset, source, flags) => growing(offset + source.length, () => file.write(offset, source, flags)),
    tryWriteNow(offset, source) {
      const end = offset + source.length;
      const done = (!active || end <= file.length()) && file.tryWriteNow(offset, source);
      if (done) reserve.used(end);
      return done;
    },
    writeZeroes: (offset, length, flags) => growing(offset + length, () => file.writeZeroes(offset, length, flags)),
    async truncate(length, how) {
      await reserve.cut();
      await file.truncate(length, how);
    },
    async prepareReopen(next) {
      const wanted = next.options as PreallocateOptions;
      checkOptions(wanted);
      if (!next.writable) await reserve.cut();
      return {
        commit() {
          reserve.options = wanted;
          active = next.writable;
        },
        abort() {},
      };
    },
    childPermissions(_child, wanted) {
      // Until it is cut off. Others would take what is reserved for a part of the file.
      const need = wanted.need | (reserve.isThere ? CHANGES : 0);
      return { need, share: (need & Permission.resize) === 0 ? wanted.share : wanted.share & ~CHANGES };
    },
    inactivate: () => reserve.cut(),
    close: () => reserve.cut(),
  };
}

/** The part of a file that is used, and what is reserved behind it. */
class Reserve {
  options: PreallocateOptions;
  readonly #file: Link;
  /** Bytes used; undefined: nothing is reserved, all of the file is. */
  #end: number | undefined;
  #able = true;
  /** Growing and cutting happen one after the other. */
  readonly #turn = new Mutex();

  constructor(file: Link, options: PreallocateOptions) {
    this.#file = file;
    this.options = options;
  }

  get length(): number {
    return this.#end ?? this.#file.length();
  }

  get isThere(): boolean {
    return this.#end !== undefined && this.#file.length() > this.#end;
  }

  used(end: number): void {
    if (this.#end !== undefined) this.#end = Math.max(this.#end, end);
  }

  /** Reserves storage up to `end` and beyond, where that is not done yet. What cannot be reserved is no error: the write will tell. */
  cover(end: number): Promise<void> {
    return this.#turn.run(async () => {
      const file = this.#file;
      const before = file.length();
      const mayResize = (file.held.need & Permission.resize) !== 0;
      if (!this.#able || !mayResize || end <= before) return;
      const step = Math.max(1, this.options['prealloc-align'], file.limits().requestAlign);
      const wanted = Math.ceil((end + this.options['prealloc-size']) / step) * step;
      if (!Number.isSafeInteger(wanted)) return;
      this.#end ??= before;
      try {
        await file.truncate(wanted, { preallocation: 'falloc', noFallback: true });
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        if (codeOf(error) === 'ENOTSUP') this.#able = false;
      }
    });
  }

  /** Cuts off what is not used. */
  cut(): Promise<void> {
    return this.#turn.run(async () => {
      if (this.#end !== undefined && this.isThere) await this.#file.truncate(this.#end, { shrink: true });
      this.#end = undefined;
    });
  }
}
