/** An open file of a simulated host. */
import { alignDown } from '../bytes/align.ts';
import type { HostExtent, HostFile, HostFileKind, HostFileMode, LockHolder } from '../core/host.ts';
import { invariant } from '../core/invariant.ts';
import type { SimOperation } from './sim-faults.ts';
import { SECTOR_SIZE } from './sim-image.ts';
import { type SimFeature, type SimWorld, simError } from './sim-world.ts';
import type { SparseBytes } from './sparse-bytes.ts';
import { PAGE_SIZE } from './sparse-bytes.ts';

export class SimFile implements HostFile {
  readonly kind: HostFileKind;
  readonly requestAlign: number;
  readonly #world: SimWorld;
  readonly #file: number;
  readonly #path: string;
  readonly #mode: HostFileMode;
  readonly #content: SparseBytes;
  #open = true;

  constructor(world: SimWorld, file: number, path: string, mode: HostFileMode) {
    const stored = world.image.files.get(file);
    invariant(stored !== undefined, `no such file: ${path}`);
    this.#world = world;
    this.#file = file;
    this.#path = path;
    this.#mode = mode;
    this.kind = stored.kind;
    this.#content = stored.content;
    this.requestAlign = mode.direct ? world.settings.directAlign : 1;
    world.openPaths.set(this, path);
  }

  size(): number {
    return this.#content.length;
  }

  allocated(): number | undefined {
    return this.#content.allocated;
  }

  async read(offset: number, target: Uint8Array): Promise<number> {
    this.#checkAlign(offset, target.length);
    await this.#enter('read', offset, target.length);
    const count = this.#content.read(offset, target);
    this.#world.counters.bytesRead += count;
    return count;
  }

  tryReadNow(offset: number, target: Uint8Array): number {
    if (!this.#readyNow('read', offset, target.length)) {
      // A refused read may have filled some of the buffer already.
      target.fill(0xa5, 0, this.#world.chance.below(target.length + 1));
      return -1;
    }
    const count = this.#content.read(offset, target);
    this.#world.counters.bytesRead += count;
    return count;
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    this.#checkAlign(offset, source.length);
    this.#checkWritable();
    try {
      await this.#enter('write', offset, source.length);
    } catch (error) {
      // A failed write may have reached the file in part, in whole sectors: as after a crash, none is torn.
      const wanted = this.#world.crashed ? 0 : this.#world.chance.below(source.length + 1);
      const done = wanted === source.length ? wanted : Math.max(0, alignDown(offset + wanted, SECTOR_SIZE) - offset);
      this.#put(offset, source.subarray(0, this.#fitting(offset, done)));
      throw error;
    }
    const fitting = this.#fitting(offset, source.length);
    this.#put(offset, source.subarray(0, fitting));
    if (fitting < source.length) throw simError('ENOSPC');
  }

  tryWriteNow(offset: number, source: Uint8Array): boolean {
    if (!this.#mode.write || !this.#readyNow('write', offset, source.length)) return false;
    if (this.#fitting(offset, source.length) < source.length) return false;
    this.#put(offset, source);
    return true;
  }

  async flush(): Promise<void> {
    const covers = this.#world.log.length;
    await this.#enter('flush');
    if (this.#world.settings.record) {
      this.#world.log.push({ type: 'flush', file: this.#file, path: this.#path, covers });
    }
  }

  async truncate(length: number): Promise<void> {
    this.#checkWritable();
    await this.#enter('truncate', length);
    if (this.kind !== 'regular') throw simError('EINVAL');
    this.#change({ kind: 'truncate', length });
  }

  async allocate(offset: number, length: number): Promise<void> {
    await this.#alter('allocate', offset, length);
    if (this.#content.missing(offset, length) > this.#world.space()) throw simError('ENOSPC');
    this.#change({ kind: 'allocate', offset, length });
  }

  async punchHole(offset: number, length: number): Promise<void> {
    await this.#alter('punchHole', offset, length);
    this.#change({ kind: 'punch', offset, length });
  }

  async zeroRange(offset: number, length: number): Promise<void> {
    await this.#alter('zeroRange', offset, length);
    if (this.#content.missing(offset, length) > this.#world.space()) throw simError('ENOSPC');
    this.#change({ kind: 'zero', offset, length });
  }

  extent(offset: number, length: number): HostExtent {
    this.#checkOpen();
    invariant(length > 0, 'the extent of an empty range was asked for');
    return this.#world.has('extent') ? this.#content.run(offset, length) : { kind: 'data', length };
  }

  async copyFrom(source: HostFile, sourceOffset: number, offset: number, length: number): Promise<number> {
    await this.#alter('copyFrom', offset, length);
    if (!(source instanceof SimFile) || source.#world !== this.#world) throw simError('EXDEV');
    // The kernel too may copy less than asked.
    const short = length > PAGE_SIZE && this.#world.chance.chance(this.#world.settings.refuseNow);
    const data = new Uint8Array(short ? this.#world.chance.between(1, length) : length);
    const found = data.subarray(0, source.#content.read(sourceOffset, data));
    const fitting = this.#fitting(offset, found.length);
    if (found.length > 0 && fitting === 0) throw simError('ENOSPC');
    this.#put(offset, found.subarray(0, fitting));
    return fitting;
  }

  lock(kind: 'shared' | 'exclusive' | 'none', offset: number, length: number): boolean {
    this.#needLocks();
    return this.#world.locks(this.#file).set(this, kind, offset, length);
  }

  isLocked(kind: 'shared' | 'exclusive', offset: number, length: number): boolean {
    this.#needLocks();
    return this.#world.locks(this.#file).blocker(this, kind, offset, length) !== undefined;
  }

  lockHolder(_offset: number, _length: number): LockHolder | undefined {
    return undefined;
  }

  async close(): Promise<void> {
    this.#checkOpen();
    this.#open = false;
    this.#world.openPaths.delete(this);
    this.#world.locks(this.#file).release(this);
    // The file is closed even when this reports an error, as on Linux.
    await this.#world.enter({ operation: 'close', path: this.#path });
  }

  #needLocks(): void {
    this.#checkOpen();
    if (!this.#world.has('lock')) throw simError('ENOTSUP');
  }

  /** What the in-place operations have in common: they may be missing, and need a writable file. */
  async #alter(operation: SimOperation & SimFeature, offset: number, length: number): Promise<void> {
    this.#checkWritable();
    await this.#enter(operation, offset, length);
    if (!this.#world.has(operation)) throw simError('ENOTSUP');
  }

  async #enter(operation: SimOperation, offset?: number, length?: number): Promise<void> {
    this.#checkOpen();
    await this.#world.enter({
      operation,
      path: this.#path,
      ...(offset === undefined ? {} : { offset }),
      ...(length === undefined ? {} : { length }),
    });
  }

  /** Whether a request can be answered at once: chance, faults, a crash or a spent budget may forbid it. */
  #readyNow(operation: 'read' | 'write', offset: number, length: number): boolean {
    const world = this.#world;
    if (!this.#open || world.crashed || this.#mode.aio === 'threads') return false;
    if (offset % this.requestAlign !== 0 || length % this.requestAlign !== 0) return false;
    if (world.faults.concerns({ operation, path: this.#path, offset, length })) return false;
    return !world.chance.chance(world.settings.refuseNow) && world.withinBudget(operation);
  }

  /** How much of a write there is room for. */
  #fitting(offset: number, length: number): number {
    if (this.kind === 'block') return Math.max(0, Math.min(length, this.#content.length - offset));
    const space = this.#world.space();
    if (space === Number.POSITIVE_INFINITY || this.#content.missing(offset, length) <= space) return length;
    let fitting = 0;
    while (fitting < length) {
      const next = Math.min(length, fitting + PAGE_SIZE - ((offset + fitting) % PAGE_SIZE));
      if (this.#content.missing(offset, next) > space) break;
      fitting = next;
    }
    return fitting;
  }

  #put(offset: number, data: Uint8Array): void {
    if (data.length === 0) return;
    this.#world.counters.bytesWritten += data.length;
    this.#change({ kind: 'write', offset, data });
  }

  #change(change: Parameters<SimWorld['change']>[2]): void {
    this.#world.change(this.#file, this.#path, change);
  }

  #checkOpen(): void {
    invariant(this.#open, `${this.#path} is used after it was closed`);
  }

  #checkWritable(): void {
    this.#checkOpen();
    if (!this.#mode.write) throw simError('EBADF');
  }

  #checkAlign(offset: number, length: number): void {
    this.#checkOpen();
    invariant(Number.isSafeInteger(offset) && offset >= 0, `offset ${offset} of ${this.#path}`);
    if (offset % this.requestAlign !== 0 || length % this.requestAlign !== 0) throw simError('EINVAL');
  }
}
