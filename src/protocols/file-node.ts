/** A host file as a node: its bytes, its holes, its locks. */
import type { DriverNode, Extent, ReopenTarget, ZeroFlags } from '../core/driver.ts';
import { codeOf, withErrno } from '../core/errors.ts';
import type { Host, HostContext, HostExtent, HostFile } from '../core/host.ts';
import { FileLocks, type Locking } from './file-locks.ts';
import { resizeFile } from './file-resize.ts';

/** Device storage is freed and zeroed by whole blocks of this many bytes, which any device's blocks divide. */
const DEVICE_BLOCK = 4096;
/** One call may keep a thread of the pool busy for as long as a device needs for this many bytes. */
const DEVICE_ZERO_MAX = 1 << 30;

const ABILITIES = { zeroRange: 'zero ranges', punchHole: 'make holes', allocate: 'reserve storage' };
type Ability = keyof typeof ABILITIES;

/** The host's files behind nodes, for copying between two of them. */
const files = new WeakMap<DriverNode, HostFile>();

export interface FileNodeOptions {
  readonly filename: string;
  readonly locking: Locking;
  /** Opened only for reading though writing was asked. */
  readonly readOnly: boolean;
  /** The one that it was opened in. */
  readonly context: HostContext | undefined;
  /** Opens the same file in another way. */
  reopen(next: ReopenTarget, context: HostContext | undefined): Promise<HostFile>;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The file as it is now: a reopen replaces it. */
interface State {
  file: HostFile;
  storage: FileStorage;
  context: HostContext | undefined;
}

/** A node over an open file, which it closes. */
export function fileNode(host: Host, opened: HostFile, options: FileNodeOptions): DriverNode {
  const { filename, readOnly, context } = options;
  const state: State = { file: opened, storage: new FileStorage(host, opened, filename), context };
  const regular = opened.kind === 'regular';
  const node: Mutable<DriverNode> = {
    // No accessor: an object with one looks up all of its methods slowly.
    readOnly,
    length: () => state.file.size(),
    async read(offset, target) {
      const count = await state.file.read(offset, target);
      // Someone else has cut the file meanwhile.
      if (count < target.length) target.fill(0, count);
    },
    tryReadNow(offset, target) {
      const count = state.file.tryReadNow(offset, target);
      if (count < 0) return false;
      if (count < target.length) target.fill(0, count);
      return true;
    },
    write: (offset, source) => state.file.write(offset, source),
    tryWriteNow: (offset, source) => state.file.tryWriteNow(offset, source),
    writeZeroes: (offset, length, flags) => state.storage.zero(offset, length, flags),
    discard: (offset, length) => state.storage.discard(offset, length),
    flush: () => state.file.flush(),
    async status(offset, length) {
      const run = state.file.extent(offset, length) ?? (await state.file.findExtent?.(offset, length));
      return told(run ?? { kind: 'data', length }, offset);
    },
    tryStatusNow(offset, length) {
      const run = state.file.extent(offset, length);
      return run && told(run, offset);
    },
    limits: () => ({
      requestAlign: state.file.requestAlign,
      ...(!regular && {
        zeroAlign: Math.max(DEVICE_BLOCK, state.file.requestAlign),
        discardAlign: Math.max(DEVICE_BLOCK, state.file.requestAlign),
        zeroMax: DEVICE_ZERO_MAX,
      }),
    }),
    truncate: (length, how) => resizeFile(state.file, length, how),
    allocatedSize: () => state.file.allocated(),
    hostFile: () => state.file,
    async copyFrom(source, sourceOffset, offset, length) {
      const from = files.get(source);
      if (from === undefined) throw withErrno('ENOTSUP', `Cannot copy into '${filename}' inside the host`);
      return state.file.copyFrom(from, sourceOffset, offset, length);
    },
    info() {
      const hint = state.file.extentSizeHint?.() ?? 0;
      return { dirty: false, specific: { type: 'file', data: hint > 0 ? { 'extent-size-hint': hint } : {} } };
    },
    zeroInit: () => regular,
    ...changes(host, state, options, (file, writable) => {
      files.set(node, file);
      node.readOnly = node.readOnly === true && !writable;
    }),
    close: () => state.file.close(),
  };
  files.set(node, opened);
  return node;
}

function told(run: HostExtent, offset: number): Extent {
  return { kind: run.kind === 'hole' ? 'zero' : 'data', length: run.length, at: { offset } };
}

/** What may change while the file is open: how, where and for whom. */
function changes(
  host: Host,
  state: State,
  { filename, locking, reopen }: FileNodeOptions,
  replaced: (file: HostFile, writable: boolean) => void,
): Pick<DriverNode, 'prepareReopen' | 'prepareContext' | 'preparePermissions'> {
  const locks = new FileLocks(state.file, filename, host, locking);
  return {
    async prepareReopen(next) {
      const replacement = await reopen(next, state.context);
      const before = state.file;
      return {
        commit() {
          state.file = replacement;
          state.storage = new FileStorage(host, replacement, filename);
          replacement.setContext?.(state.context);
          locks.moveTo(replacement);
          replaced(replacement, next.writable);
        },
        abort: () => void replacement.close().catch((error) => host.notice(`'${filename}': ${error.message}`)),
        finish: () => before.close(),
      };
    },
    prepareContext(next) {
      const before = state.context;
      const move = (context: HostContext | undefined) => {
        state.file.setContext?.(context);
        state.context = context;
      };
      move(next);
      return { commit() {}, abort: () => move(before) };
    },
    preparePermissions: (next) => locks.prepare(next),
  };
}

/** Zeroing and freeing storage in the ways the host has; what it lacks is remembered and noted once. */
class FileStorage {
  readonly #host: Host;
  readonly #file: HostFile;
  readonly #filename: string;
  readonly #lacks = new Set<Ability>();

  constructor(host: Host, file: HostFile, filename: string) {
    this.#host = host;
    this.#file = file;
    this.#filename = filename;
  }

  async zero(offset: number, length: number, { unmap = false }: ZeroFlags): Promise<void> {
    const end = offset + length;
    const size = this.#file.size();
    const inside = Math.min(end, size) - offset;
    const done =
      (inside <= 0 || (await this.#clear(offset, inside, unmap))) &&
      (end <= size || (await this.#extend(Math.max(offset, size), end)));
    if (!done) throw withErrno('ENOTSUP', `Cannot zero a range of '${this.#filename}'`);
  }

  async discard(offset: number, length: number): Promise<void> {
    const file = this.#file;
    const work = () => (file.discard === undefined ? file.punchHole(offset, length) : file.discard(offset, length));
    if (!(await this.#attempt('punchHole', work))) {
      throw withErrno('ENOTSUP', `Cannot discard a range of '${this.#filename}'`);
    }
  }

  async #clear(offset: number, length: number, unmap: boolean): Promise<boolean> {
    const file = this.#file;
    const punch = () => this.#attempt('punchHole', () => file.punchHole(offset, length));
    if (unmap && (await punch())) return true;
    if (await this.#attempt('zeroRange', () => file.zeroRange(offset, length))) return true;
    if (unmap || file.kind !== 'regular' || this.#lacks.has('allocate')) return false;
    // As on tmpfs: storage that is freed and reserved anew is zero, and still there.
    return (await punch()) && (await this.#attempt('allocate', () => file.allocate(offset, length)));
  }

  /**
   * Past the end nothing is stored. The file grows by a write of its last block, not by setting its size, since another
   * request may have made it longer meanwhile. The hole is made in case that someone else did.
   */
  async #extend(from: number, end: number): Promise<boolean> {
    const file = this.#file;
    if (!(await this.#attempt('punchHole', () => file.punchHole(from, end - from)))) return false;
    await file.write(end - file.requestAlign, new Uint8Array(file.requestAlign));
    return true;
  }

  async #attempt(ability: Ability, work: () => Promise<void>): Promise<boolean> {
    if (this.#lacks.has(ability)) return false;
    try {
      await work();
      return true;
    } catch (error) {
      if (codeOf(error) !== 'ENOTSUP') throw error;
      this.#lacks.add(ability);
      this.#host.notice(`'${this.#filename}': the host cannot ${ABILITIES[ability]} there`);
      return false;
    }
  }
}
