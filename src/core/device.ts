/** Devices: named front ends that a medium is put in and taken out of (BL-TERM-6, BL-MEDIA). */
import { requireUnblocked } from './blockers.ts';
import { Disk, type DiskOwner } from './disk.ts';
import type { TruncateOptions, WriteFlags, ZeroFlags } from './driver.ts';
import { BlockError } from './errors.ts';
import type { Graph } from './graph.ts';
import { isInserted } from './info.ts';
import type { IoLimiter } from './io-limiter.ts';
import { BlockNode } from './node.ts';
import type { OpenOptions } from './open-options.ts';
import type { NestedOptions } from './options.ts';

/** Traits of a new device. */
export interface DeviceOptions {
  /** The guest's name for it, told by events. Default: the device's name. */
  readonly id?: string;
  /** It has a tray, which must be open for a medium to be changed. Default false. */
  readonly tray?: boolean;
  readonly listener?: DeviceListener;
}

/** What a device's guest side wants to know. */
export interface DeviceListener {
  /** The medium has another length, in bytes (BL-SIZE-3). */
  resized?(length: number): void;
  /** A medium is there, or is gone (BL-OPEN-18, BL-CLOSE-2). */
  mediumChanged?(loaded: boolean): void;
}

interface Force {
  /** Whatever stands in the way. Default false. */
  readonly force?: boolean;
}

/** Every method throws BlockError; ENOMEDIUM without a medium, or while the tray is open. */
export class Device implements DiskOwner {
  readonly name: string;
  readonly id: string;
  readonly hasTray: boolean;
  readonly description: string;
  readonly #graph: Graph;
  readonly #listener: DeviceListener;
  #disk: Disk | undefined;
  /** Ends with the changes that were asked for so far. */
  #changing: Promise<void> | undefined;
  #trayOpen = false;
  #locked = false;
  #limiter: IoLimiter | undefined;
  /** What was chosen for this and all later media (BL-INFO-10). */
  #writeCache: boolean | undefined;

  constructor(graph: Graph, name: string, { id = name, tray = false, listener = {} }: DeviceOptions) {
    this.#graph = graph;
    this.name = name;
    this.id = id;
    this.hasTray = tray;
    this.description = `block device '${name}'`;
    this.#listener = listener;
  }

  get deviceName(): string {
    return this.name;
  }

  /** The medium's top node; undefined: there is no medium. */
  get node(): BlockNode | undefined {
    return this.#disk?.isOpen ? this.#disk.node : undefined;
  }

  /** Whether there is a node and a medium in what it stands for (BL-MEDIA-1). */
  get isInserted(): boolean {
    return this.node !== undefined && isInserted(this.node);
  }

  /** False without a tray. */
  get isTrayOpen(): boolean {
    return this.#trayOpen;
  }

  /** Whether the tray is kept closed. */
  get isLocked(): boolean {
    return this.#locked;
  }

  requireNode(): BlockNode {
    if (this.node === undefined) throw this.#noMedium();
    return this.node;
  }

  /** The medium, for requests. It outlives neither the medium nor a closed tray. */
  get disk(): Disk {
    const disk = this.#disk;
    if (disk?.isOpen !== true) throw this.#noMedium();
    if (this.#trayOpen) throw new BlockError('ENOMEDIUM', `The tray of device '${this.name}' is open`);
    return disk;
  }

  /** Fills the buffer from the medium. These requests throw BlockError ENOMEDIUM where there is none, or the tray is open. */
  async read(offset: number, target: Uint8Array): Promise<Uint8Array> {
    return this.disk.read(offset, target);
  }

  /** See {@link Disk.write}. */
  async write(offset: number, source: Uint8Array, flags?: WriteFlags): Promise<void> {
    await this.disk.write(offset, source, flags);
  }

  /** See {@link Disk.writeZeroes}. */
  async writeZeroes(offset: number, length: number, flags?: ZeroFlags): Promise<void> {
    await this.disk.writeZeroes(offset, length, flags);
  }

  /** See {@link Disk.discard}. */
  async discard(offset: number, length: number): Promise<void> {
    await this.disk.discard(offset, length);
  }

  /** See {@link Disk.flush}. */
  async flush(): Promise<void> {
    await this.disk.flush();
  }

  /** Changes the medium's size (BL-SIZE-4). */
  async truncate(length: number, options?: TruncateOptions): Promise<void> {
    if (this.node === undefined) throw new BlockError('ENOMEDIUM', 'No medium inserted');
    await this.disk.resize(length, options);
  }

  /**
   * Puts a node in, or opens one like {@link Graph.open} and puts it in. A tray must be open, and stays so. EBUSY if there
   * is a medium, or if the node is in another device.
   */
  insert(source: BlockNode | string | NestedOptions, options: OpenOptions = {}): Promise<void> {
    return this.#inOrder(() => this.#insert(source, options));
  }

  /**
   * Takes the medium out of an open tray: requests under way end first, those that limits hold back too. No medium, no
   * effect. EBUSY if something keeps it in, unless by `force`.
   */
  remove(how: Force = {}): Promise<void> {
    return this.#inOrder(() => this.#remove(how));
  }

  /** Opens the tray and takes the medium out. EBUSY while it is locked, unless by `force`. */
  eject(how: Force = {}): Promise<void> {
    return this.#inOrder(async () => {
      if (this.node !== undefined && how.force !== true) requireUnblocked(this.node, 'eject', this.name);
      await this.#openTray(how);
      await this.#remove(how);
    });
  }

  /** Also of the drive that the node stands for. No tray, or open already: no effect. EBUSY while it is locked. */
  openTray(how: Force = {}): Promise<void> {
    return this.#inOrder(() => this.#openTray(how));
  }

  /** No tray, or closed already: no effect. */
  closeTray(): Promise<void> {
    return this.#inOrder(() => this.#moveTray(false));
  }

  /** Keeps the tray from being opened, also that of the drive that the node stands for, if it has one (BL-MEDIA-2). */
  async lock(locked: boolean): Promise<void> {
    this.#locked = locked;
    await this.#drive()?.lockMedium?.(locked);
  }

  /** False: every write is durable before it resolves (BL-INFO-10). Holds for later media too. */
  get writeCache(): boolean {
    return this.#writeCache ?? this.#disk?.writeCache ?? true;
  }

  set writeCache(enabled: boolean) {
    this.#writeCache = enabled;
    if (this.#disk?.isOpen) this.#disk.writeCache = enabled;
  }

  /** What requests wait for (BL-MISC-2), of this and of later media; undefined: no more limits. */
  get ioLimiter(): IoLimiter | undefined {
    return this.#limiter;
  }

  /** Makes requests wait for a member of a throttle group; undefined: no more. */
  limitIo(limiter: IoLimiter | undefined): void {
    const before = this.#limiter;
    this.#limiter = limiter;
    this.#disk?.limitIo(limiter);
    if (before !== limiter) before?.leave();
  }

  resized(length: number): void {
    this.#listener.resized?.(length);
  }

  /** One change after the other, the first at once. */
  #inOrder(change: () => Promise<void>): Promise<void> {
    const before = this.#changing;
    let ended: Promise<void> | undefined;
    const run = async () => {
      try {
        if (before !== undefined) await before;
        await change();
      } finally {
        if (this.#changing === ended) this.#changing = undefined;
      }
    };
    const result = run();
    ended = result.catch(() => {});
    this.#changing = ended;
    return result;
  }

  async #insert(source: BlockNode | string | NestedOptions, options: OpenOptions): Promise<void> {
    this.#requireOpenTray();
    if (this.node !== undefined) {
      throw new BlockError('EBUSY', `There is a medium in device '${this.name}' already`);
    }
    const attach = (node: BlockNode) => Disk.attach(this.#graph, node, options, this);
    if (source instanceof BlockNode) {
      if (source.deviceName !== '') {
        throw new BlockError('EBUSY', `Node '${source.name}' is in device '${source.deviceName}' already`);
      }
      this.#disk = await attach(source);
    } else this.#disk = await this.#graph.openFor(source, options, attach);
    this.#disk.limitIo(this.#limiter);
    if (this.#writeCache !== undefined) this.#disk.writeCache = this.#writeCache;
    this.#listener.mediumChanged?.(true);
  }

  async #remove({ force = false }: Force): Promise<void> {
    const { node } = this;
    if (!force) {
      this.#requireOpenTray();
      if (node !== undefined) requireUnblocked(node, 'eject', this.name);
    }
    const disk = this.#disk;
    this.#disk = undefined;
    if (disk === undefined || node === undefined) return;
    this.#listener.mediumChanged?.(false);
    await disk.close();
  }

  async #openTray({ force = false }: Force): Promise<void> {
    if (this.#locked && !force) throw new BlockError('EBUSY', `Device '${this.name}' is locked`);
    await this.#moveTray(true);
  }

  async #moveTray(open: boolean): Promise<void> {
    if (!this.hasTray || this.#trayOpen === open) return;
    await this.#drive()?.eject?.(open);
    this.#trayOpen = open;
    const { name: device, id } = this;
    this.#graph.emit('diskwright:device:tray-moved', { device, id, 'tray-open': open });
  }

  /** What drives a real tray: the first down the primary children that can. */
  #drive(): BlockNode['impl'] | undefined {
    for (let { node } = this; node?.isOpen; node = node.primary?.node) {
      if (node.impl.eject !== undefined || node.impl.lockMedium !== undefined) return node.impl;
    }
    return undefined;
  }

  #requireOpenTray(): void {
    if (!this.hasTray || this.#trayOpen) return;
    throw new BlockError('EBUSY', `The tray of device '${this.name}' is closed`);
  }

  #noMedium(): BlockError {
    return new BlockError('ENOMEDIUM', `Device '${this.name}' has no medium`);
  }
}

/** The devices of a graph, by name. */
export class Devices {
  readonly #graph: Graph;
  /** In the order they were added (BL-TERM-7). */
  readonly #devices = new Map<string, Device>();

  constructor(graph: Graph) {
    this.#graph = graph;
  }

  /** Throws BlockError EINVAL for a name that is malformed, or taken by a device or a node. */
  add(name: string, options: DeviceOptions = {}): Device {
    if (!/^[A-Za-z][A-Za-z0-9._-]*$/.test(name)) throw new BlockError('EINVAL', `Invalid device name: '${name}'`);
    if (this.#devices.has(name)) throw new BlockError('EINVAL', `Duplicate devices with name '${name}'`);
    if (this.#graph.node(name) !== undefined) {
      throw new BlockError('EINVAL', `device name=${name} is conflicting with a node name`);
    }
    const device = new Device(this.#graph, name, options);
    this.#devices.set(name, device);
    return device;
  }

  /** Undefined: there is none of this name. */
  get(name: string): Device | undefined {
    return this.#devices.get(name);
  }

  /** In the order in which they were added. */
  all(): Device[] {
    return [...this.#devices.values()];
  }

  /** The nodes in devices: the root list. */
  rootNodes(): BlockNode[] {
    return this.all().flatMap(({ node }) => node ?? []);
  }

  /** Takes the medium out, whatever keeps it in, and forgets the device. */
  async remove(device: Device): Promise<void> {
    if (this.#devices.get(device.name) === device) this.#devices.delete(device.name);
    device.limitIo(undefined);
    await device.remove({ force: true });
  }
}
