/// <reference lib="esnext.disposable" preserve="true" />
/** Disk: what a library user holds of an opened graph. */
import { amend } from './amend.ts';
import { cacheSettings } from './cache.ts';
import { disableCopyOnRead, enableCopyOnRead } from './copy-on-read.ts';
import { copyRange } from './copy-range.ts';
import { DiskSnapshots } from './disk-snapshots.ts';
import type {
  AmendOptions,
  CheckOptions,
  CheckReport,
  CompactOptions,
  DataFlags,
  DriverInfo,
  Limits,
  TruncateOptions,
  WriteFlags,
  ZeroFlags,
} from './driver.ts';
import { BlockError } from './errors.ts';
import type { RequestEvent } from './events.ts';
import type { Graph } from './graph.ts';
import { allocatedSize, driverInfo, zeroInit } from './info.ts';
import { type IoLimiter, LimitedRequests } from './io-limiter.ts';
import type { BlockNode, GraphUser, Link } from './node.ts';
import { type OpenOptions, permissionsFor, readingOnly } from './open-options.ts';
import { flattenOptions, type NestedOptions } from './options.ts';
import { Permission, type Permissions } from './permissions.ts';
import * as request from './request.ts';
import { observed } from './request-events.ts';
import { checkResize } from './resize-checks.ts';
import { type BlockStatus, status, tryStatus } from './status.ts';
import { RequestTracker } from './tracker.ts';
import { NOW_MAX, Turns } from './turns.ts';

export type { OpenOptions } from './open-options.ts';

/** For whom a disk is held, if not for a caller of the library: a device. */
export interface DiskOwner {
  /** As messages name it. */
  readonly description: string;
  readonly deviceName: string;
  resized(length: number): void;
}

/** Offsets and lengths are bytes. Every method throws BlockError; EIO for a range outside the disk. */
export class Disk implements GraphUser, AsyncDisposable {
  readonly description: string;
  readonly deviceName: string | undefined;
  /** Where it is open. */
  readonly graph: Graph;
  /** Snapshots inside the image, where the format has them. */
  readonly snapshots = new DiskSnapshots(this, (work) => this.#mayResize(work));
  readonly #owner: DiskOwner | undefined;
  #node: BlockNode;
  #writeThrough: boolean;
  #link: Link | undefined;
  /** The node that copies to itself what is read, for this disk. */
  #copiesOnRead: BlockNode | undefined;
  /** What the link holds while the node is active. */
  readonly #wanted: Permissions;
  /** Truncates under way: the permission to resize is held as long. */
  #truncating = 0;
  #closing: Promise<void> | undefined;
  readonly #limited = new LimitedRequests();
  readonly #turns = new Turns();
  /** Requests of this disk that have begun; those that a drain holds back have not. */
  readonly #underWay = new RequestTracker();

  private constructor(graph: Graph, node: BlockNode, options: OpenOptions, owner: DiskOwner | undefined) {
    this.graph = graph;
    this.description = owner?.description ?? 'an unnamed block device';
    this.deviceName = owner?.deviceName;
    this.#owner = owner;
    this.#node = node;
    const cache = options.cache === undefined ? undefined : cacheSettings(options.cache);
    this.#writeThrough = !(cache ?? node.settings.cache).writeBack;
    this.#wanted = permissionsFor(node, options);
  }

  /** Takes hold of an opened node; on refusal the node is closed again if nobody else uses it. */
  static async attach(graph: Graph, node: BlockNode, options: OpenOptions, owner?: DiskOwner): Promise<Disk> {
    const disk = new Disk(graph, node, options, owner);
    try {
      const wanted = node.inactive ? readingOnly(disk.#wanted) : disk.#wanted;
      disk.#link = graph.attach('root', disk, node, 'filtered', wanted);
    } catch (error) {
      await graph.closeUnused([node]).catch(() => {});
      throw error;
    }
    if (options.copyOnRead === true) {
      enableCopyOnRead(node);
      disk.#copiesOnRead = node;
    }
    return disk;
  }

  /** The top node now: filters and snapshots may come on top. After closing, the last one. */
  get node(): BlockNode {
    return this.#link?.node ?? this.#node;
  }

  /** Bytes. */
  get length(): number {
    return this.node.impl.length();
  }

  /** Whether it can be written to; false once it is closed. */
  get writable(): boolean {
    return this.#link?.writable ?? false;
  }

  /** False once it is closed. */
  get isOpen(): boolean {
    return this.#link !== undefined && this.#closing === undefined;
  }

  /** False: every write is made durable before it resolves. Kept by reopens (BL-INFO-10). */
  get writeCache(): boolean {
    return !this.#writeThrough;
  }

  set writeCache(enabled: boolean) {
    this.#writeThrough = !enabled;
    const { node } = this;
    node.settings = { ...node.settings, cache: { ...node.settings.cache, writeBack: enabled } };
  }

  /** Makes requests wait for their turn; undefined: no more (BL-MISC-2). What waits already keeps its turn. */
  limitIo(limiter: IoLimiter | undefined): void {
    this.#limited.limiter = limiter;
  }

  /** The node's length has changed (BL-SIZE-3). */
  resized(length: number): void {
    this.#owner?.resized(length);
  }

  /** The node goes inactive; a device, whose guest has stopped, lets go of writing (BL-MISC-3). */
  inactivate(): void {
    if (this.#owner === undefined || this.#link === undefined) return;
    this.graph.changePermissions(this.#link, readingOnly(this.#wanted));
  }

  activate(): void {
    if (this.#link !== undefined) this.graph.changePermissions(this.#link, this.#wanted);
  }

  /** Whether work on it may go past its requests: nobody counts them or holds them back. */
  get maySkipRequests(): boolean {
    const free = this.isOpen && this.node.drainDepth === 0 && this.#limited.limiter === undefined;
    return free && !this.graph.host.watched('diskwright:request');
  }

  /** Of the top node; unique in the graph. */
  get nodeName(): string {
    return this.node.name;
  }

  /** The top node's driver. */
  get format(): string {
    return this.node.driver.name;
  }

  /** The name shown for it (BL-REFRESH-5). */
  get filename(): string {
    return this.node.filename;
  }

  /** What requests are aligned to and split by. Requests of any alignment are fine; aligned ones cost less. */
  get limits(): Limits {
    return this.node.limits;
  }

  /** Fills a buffer, or makes one of `length` bytes. */
  read(offset: number, length: number): Promise<Uint8Array>;
  read(offset: number, target: Uint8Array): Promise<Uint8Array>;
  read(offset: number, wanted: number | Uint8Array): Promise<Uint8Array> {
    const target = typeof wanted === 'number' ? new Uint8Array(wanted) : wanted;
    if (target.length <= NOW_MAX && this.#mayAnswerNow(target.length) && this.tryReadNow(offset, target)) {
      return Promise.resolve(target);
    }
    return this.#readLater(offset, target);
  }

  async #readLater(offset: number, target: Uint8Array): Promise<Uint8Array> {
    this.#checkRange('read', offset, target.length);
    await this.#turns.run(() =>
      this.#run('read', offset, target.length, () => request.read(this.node, offset, target)),
    );
    return target;
  }

  /** True: `target` is full. False: ask `read`. Never waits. */
  tryReadNow(offset: number, target: Uint8Array): boolean {
    if (this.#link === undefined || this.node.drainDepth > 0 || !isOffset(offset)) return false;
    const { limiter } = this.#limited;
    if (limiter === undefined) return request.tryRead(this.node, offset, target);
    const done = limiter.mayPass('read') && request.tryRead(this.node, offset, target);
    if (done) limiter.count('read', target.length);
    return done;
  }

  /** `compressed`: whole clusters, or up to the disk's end. */
  write(offset: number, source: Uint8Array, flags: DataFlags = request.NO_FLAGS): Promise<void> {
    const small = source.length <= NOW_MAX && flags.fua !== true && flags.compressed !== true;
    if (small && this.#mayAnswerNow(source.length) && this.tryWriteNow(offset, source)) return Promise.resolve();
    return this.#writeLater(offset, source, flags);
  }

  async #writeLater(offset: number, source: Uint8Array, flags: DataFlags): Promise<void> {
    this.#requireWritable();
    this.#checkRange('write', offset, source.length);
    const all = this.#withCacheMode(flags);
    await this.#turns.run(() =>
      this.#run('write', offset, source.length, () => request.write(this.node, offset, source, all)),
    );
  }

  /** True: written, though not durable. False: ask `write`; nothing happened. Never waits. */
  tryWriteNow(offset: number, source: Uint8Array): boolean {
    if (this.#link === undefined || this.node.drainDepth > 0 || !isOffset(offset) || this.#writeThrough) return false;
    if (offset + source.length > this.length) return false;
    const { limiter } = this.#limited;
    if (limiter === undefined) return this.#link.tryWriteNow(offset, source);
    const done = limiter.mayPass('write') && this.#link.tryWriteNow(offset, source);
    if (done) limiter.count('write', source.length);
    return done;
  }

  /** Without storing them where the format can; `unmap` gives their storage back. */
  async writeZeroes(offset: number, length: number, flags: ZeroFlags = request.NO_FLAGS): Promise<void> {
    this.#requireWritable();
    this.#checkRange('write', offset, length);
    const all = this.#withCacheMode(flags);
    await this.#run('zero', offset, length, () => request.writeZeroes(this.node, offset, length, all));
  }

  /** A hint that the content is no longer needed; it then reads as zeroes or as before. */
  async discard(offset: number, length: number): Promise<void> {
    this.#requireWritable();
    this.#checkRange('discard', offset, length);
    await this.#run('discard', offset, length, () => request.discard(this.node, offset, length));
  }

  /** Makes all writes that were completed before durable, unless the cache mode is `unsafe`. */
  async flush(): Promise<void> {
    this.#open();
    await this.#run('flush', 0, 0, () => request.flush(this.node));
  }

  /** One run of like status from `offset`, at most `length` long; `length` must not be 0. */
  async status(offset: number, length: number): Promise<BlockStatus> {
    this.#checkRange('tell the status of', offset, length);
    while (this.node.drainDepth > 0) {
      await this.#whenResumed();
      this.#checkRange('tell the status of', offset, length);
    }
    const { node } = this;
    return node.tracker.track(() => status(node, offset, length));
  }

  /** The same at once, or undefined where it must wait. */
  tryStatusNow(offset: number, length: number): BlockStatus | undefined {
    if (this.#link === undefined || !isOffset(offset) || offset + length > this.length) return undefined;
    return tryStatus(this.node, offset, length);
  }

  /** Changes the size to `length` bytes. Making it smaller loses data and needs `shrink` (V-29). */
  async resize(length: number, options: TruncateOptions = {}): Promise<void> {
    this.#open();
    checkResize(this, length, options);
    await this.#mayResize(() => this.#run('truncate', 0, length, () => request.truncate(this.node, length, options)));
  }

  /** Holds the permission to resize as long as `work` runs. */
  async #mayResize(work: () => Promise<void>): Promise<void> {
    const link = this.#open();
    const { need, share } = link.held;
    if (this.#truncating++ === 0) this.graph.changePermissions(link, { need: need | Permission.resize, share });
    try {
      await work();
    } finally {
      const resized = --this.#truncating === 0 && this.#link === link;
      if (resized) this.graph.changePermissions(link, { need: link.held.need & ~Permission.resize, share });
    }
  }

  /** Cluster size, dirty mark and what only this format has. */
  info(): DriverInfo {
    return driverInfo(this.node) ?? {};
  }

  /** Bytes of host storage in use by all files below; undefined when not known. */
  allocatedSize(): number | undefined {
    return allocatedSize(this.node);
  }

  /** Whether unwritten parts of a fresh image of this kind read as zeroes. */
  zeroInit(): boolean {
    return zeroInit(this.node);
  }

  /** Changes options of the format, in place. ENOTSUP where the format cannot (BL-INFO-15). */
  async amend(options: NestedOptions, how: AmendOptions = {}): Promise<void> {
    const work = () => this.graph.alone(this.node, () => amend(this.node, flattenOptions(options), how));
    if (this.node.impl.amend === undefined) return work();
    this.#requireWritable();
    await this.#mayResize(work);
  }

  /** Looks for damage, and repairs it if asked. ENOTSUP where the format has no check (BL-CHECK-1). */
  async check(options: CheckOptions): Promise<CheckReport> {
    const { impl } = this.node;
    if (impl.check === undefined) {
      throw new BlockError('ENOTSUP', 'This image format does not support checks', { node: this.node.name });
    }
    if (options.repair !== 'none') this.#requireWritable();
    return this.graph.alone(this.node, async () => {
      // What is checked is the image as it is stored.
      if (this.writable) await request.flush(this.node);
      const report = await impl.check?.(options);
      this.node.writeGeneration++;
      return report as CheckReport;
    });
  }

  /** Gives unused storage back, in place. ENOTSUP where the format cannot (V-51). */
  async compact(options: CompactOptions = {}): Promise<void> {
    const { impl } = this.node;
    if (impl.compact === undefined) {
      const text = `Image format driver '${this.format}' does not support compaction`;
      throw new BlockError('ENOTSUP', text, { node: this.node.name });
    }
    this.#requireWritable();
    await this.graph.alone(this.node, async () => {
      await impl.compact?.(options);
      this.node.writeGeneration++;
    });
  }

  /**
   * Copies a range of another disk inside the host, without the data coming here. Resolves with the bytes copied, which
   * may be fewer; ENOTSUP where either range is not plainly in a host file.
   */
  async copyFrom(source: Disk, sourceOffset: number, offset: number, length: number): Promise<number> {
    this.#requireWritable();
    source.#checkRange('read', sourceOffset, length);
    this.#checkRange('write', offset, length);
    while (source.node.drainDepth > 0 || this.node.drainDepth > 0) {
      await source.#whenResumed();
      await this.#whenResumed();
    }
    const [from, to] = [source.node, this.node];
    const copy = () => copyRange(from, sourceOffset, to, offset, length);
    return source.#underWay.track(() => this.#underWay.track(() => from.tracker.track(() => to.tracker.track(copy))));
  }

  /** Writes back, and lets go of everything. Calling it again waits for the same end. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    // What I/O limits hold back begins first (BL-CLOSE-2).
    if (this.#limited.areHeld) await this.#limited.letPass();
    // What it may do it may do until that is done; a node without other users lets requests end when it is closed.
    if (!this.#underWay.idle && isShared(this.node)) (await this.graph.drain(this.node)).end();
    if (this.#copiesOnRead !== undefined) disableCopyOnRead(this.#copiesOnRead);
    const link = this.#link;
    this.#node = this.node;
    this.#link = undefined;
    if (link !== undefined) await this.graph.detach(link);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #mayAnswerNow(length: number): boolean {
    return !this.graph.host.watched('diskwright:request') && this.#turns.mayAnswerNow(length);
  }

  #withCacheMode<F extends WriteFlags>(flags: F): F {
    return this.#writeThrough ? { ...flags, fua: true } : flags;
  }

  /** Starts a request in the same turn, so that a close that comes later waits for it; or when no drain holds it back. */
  #run(kind: RequestEvent['kind'], offset: number, length: number, work: () => Promise<void>): Promise<void> {
    return this.#limited.run(kind, length, () => this.#begin(kind, offset, length, work));
  }

  async #begin(kind: RequestEvent['kind'], offset: number, length: number, work: () => Promise<void>): Promise<void> {
    while (this.node.drainDepth > 0) await this.#whenResumed();
    const { graph, node } = this;
    return this.#underWay.track(() => observed(graph, { node: node.name, kind, offset, length }, work));
  }

  /** Ask again afterwards: there may be another node then, and another drain may have begun before its caller goes on. */
  async #whenResumed(): Promise<void> {
    await this.node.whenResumed();
    this.#requireAttached();
  }

  #checkRange(action: string, offset: number, length: number): void {
    this.#open();
    if (!isOffset(offset) || !isOffset(length)) {
      throw new RangeError(`offset ${offset} and length ${length} must be whole numbers of bytes, not negative`);
    }
    if (offset + length > this.length) {
      const text = `Cannot ${action} bytes ${offset} to ${offset + length} of '${this.filename}': it ends at ${this.length}`;
      throw new BlockError('EIO', text, { node: this.node.name });
    }
  }

  #requireWritable(): void {
    if (!this.#open().writable) {
      throw new BlockError('EPERM', 'Block node is read-only', { node: this.node.name });
    }
  }

  #open(): Link {
    const link = this.#requireAttached();
    if (this.#closing !== undefined) throw this.#closed();
    return link;
  }

  /** What began before a close goes on. */
  #requireAttached(): Link {
    if (this.#link === undefined) throw this.#closed();
    return this.#link;
  }

  #closed(): BlockError {
    return new BlockError('ENOMEDIUM', 'The disk is closed', { node: this.node.name });
  }
}

function isShared({ parents, holds }: BlockNode): boolean {
  return parents.length + holds > 1;
}

function isOffset(offset: number): boolean {
  return offset >= 0 && Number.isSafeInteger(offset);
}
