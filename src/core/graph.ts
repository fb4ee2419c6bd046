/** The graph: its drivers, its nodes and their names, links being made and dropped, nodes being closed. */

import { insertFilter, removeFilter, replaceNode } from './chain-change.ts';
import { closingOrder, finish } from './closing.ts';
import { ControlQueue } from './control-queue.ts';
import { Devices } from './device.ts';
import { Disk, type OpenOptions } from './disk.ts';
import { Drain } from './drain.ts';
import type { DriverSpec } from './driver.ts';
import { BlockError } from './errors.ts';
import type { Events } from './events.ts';
import { addLink, dropLink } from './graph-change.ts';
import type { Host } from './host.ts';
import { BlockNode, type GraphUser, type Link } from './node.ts';
import { openNode } from './open.ts';
import { flattenOptions, type NestedOptions, type OptionTree } from './options.ts';
import { updatePermissions } from './permission-update.ts';
import type { ChildRole, Permissions } from './permissions.ts';
import { DEFAULT_OPEN_POLICY, type OpenPolicy } from './policy.ts';
import { refreshAbove } from './refresh.ts';
import { reopen } from './reopen.ts';
import type { ReopenRequest } from './reopen-plan.ts';
import { type SnapshotOptions, snapshot } from './snapshot.ts';
import { type Transaction, transact } from './transaction.ts';

/** What a graph is made with. */
export interface GraphOptions {
  readonly host: Host;
  /** Registered in this order; look-ups and probes go from the last to the first (BL-DRV-1). */
  readonly drivers: readonly DriverSpec[];
  /** Driver names that may be opened at all, and read-only (BL-DRV-4). Both absent or empty: all. */
  readonly whitelist?: { readonly readWrite: readonly string[]; readonly readOnly: readonly string[] };
  /** What files named inside images may be opened. Default: local files of a told format. */
  readonly openPolicy?: OpenPolicy;
}

/** A node, by itself, by its name, or as the top of a disk. */
export type Target = BlockNode | Disk | string;

/** New options for one open node. */
export type ReopenChange = Omit<ReopenRequest, 'node'> & { readonly node: Target };

/** Longest node name that can be typed (BL-OPEN-20). */
const NODE_NAME_MAX = 31;

export class Graph {
  readonly host: Host;
  /** Newest first. */
  readonly drivers: readonly DriverSpec[];
  readonly whitelist: { readonly readWrite: readonly string[]; readonly readOnly: readonly string[] };
  readonly openPolicy: OpenPolicy;
  /** By name, in the order they were opened. */
  readonly #nodes = new Map<string, BlockNode>();
  /** Devices, which share the namespace with nodes (BL-TERM-6). */
  readonly devices: Devices = new Devices(this);
  readonly #drains = new Set<Drain>();
  /** What changes or opens or closes nodes goes through here, and so has nothing beside it that it does not stand. */
  readonly control = new ControlQueue();
  readonly #closings = new Map<BlockNode, Promise<void>>();
  #unnamed = 0;

  constructor(options: GraphOptions) {
    this.host = options.host;
    this.drivers = [...options.drivers].reverse();
    this.whitelist = options.whitelist ?? { readWrite: [], readOnly: [] };
    this.openPolicy = options.openPolicy ?? DEFAULT_OPEN_POLICY;
  }

  /** The driver of exactly this name (BL-DRV-2). */
  driver(name: string): DriverSpec | undefined {
    return this.drivers.find((driver) => driver.name === name);
  }

  /** Names of all drivers the whitelist lets be opened, sorted by bytes (BL-DRV-6). */
  driverNames(options: { readonly writable?: boolean } = {}): string[] {
    const allowed = this.drivers.filter((driver) => this.allows(driver.name, options.writable === true));
    return [...new Set(allowed.map((driver) => driver.name))].sort();
  }

  /** BL-DRV-4. */
  allows(driver: string, writable: boolean): boolean {
    const { readWrite, readOnly } = this.whitelist;
    if (readWrite.length === 0 && readOnly.length === 0) return true;
    return readWrite.includes(driver) || (!writable && readOnly.includes(driver));
  }

  /**
   * Opens a disk by file name (plain, `json:` or `PROTOCOL:…`), or by an option tree, nested or with dotted keys.
   * Read-only unless `writable`. Throws BlockError; then nothing stays open.
   */
  async open(source: string | NestedOptions, options: OpenOptions = {}): Promise<Disk> {
    return this.openFor(source, options, (node) => Disk.attach(this, node, options));
  }

  /**
   * Opens a node that stays open without a user, until {@link release}. It is writable unless `read-only` says
   * otherwise (BL-OPEN-21), and has no permissions until someone uses it.
   */
  async add(source: string | NestedOptions, options: OpenOptions = {}): Promise<BlockNode> {
    return this.openFor(source, { writable: true, ...options }, async (node) => {
      transact((transaction) => updatePermissions(transaction, [node]));
      this.hold(node);
      return node;
    });
  }

  /** Opens a node for `use`, which takes hold of it by a link or otherwise; else it is closed again. */
  async openFor<T>(
    source: string | NestedOptions,
    options: OpenOptions,
    use: (node: BlockNode) => Promise<T>,
  ): Promise<T> {
    const tree: OptionTree = flattenOptions(typeof source === 'string' ? (options.driverOptions ?? {}) : source);
    const node = await openNode(this, { filename: typeof source === 'string' ? source : undefined, tree, options });
    let result: T;
    try {
      result = await use(node);
    } catch (error) {
      await this.unpin(node).catch(() => {});
      throw error;
    }
    await this.unpin(node);
    return result;
  }

  /** A further disk on a node that is open already, found by its name (BL-OPEN-2). ENODEV if there is none. */
  async openReference(name: string, options: OpenOptions = {}): Promise<Disk> {
    return Disk.attach(this, this.lookUp(name), options);
  }

  /**
   * The node in a device, else the node of a name (BL-INFO-13); one name serves as both. Throws BlockError: ENODEV if there
   * is none, ENOMEDIUM for a device without medium.
   */
  lookUp(name: string | { readonly device?: string; readonly node?: string }): BlockNode {
    const { device = '', node: nodeName = '' } = typeof name === 'string' ? { device: name, node: name } : name;
    const found = this.devices.get(device)?.requireNode() ?? this.#nodes.get(nodeName);
    if (found?.isOpen && !found.opening) return found;
    throw new BlockError('ENODEV', `Cannot find device='${device}' nor node-name='${nodeName}'`);
  }

  /**
   * Puts a filter on top of a node: `insertFilter(disk, { driver: 'throttle', 'throttle-group': 'slow' })`. All that use
   * the node go through it from then on; it closes with its users, or by {@link removeFilter}.
   */
  insertFilter(target: Target, options: NestedOptions): Promise<BlockNode> {
    return insertFilter(this, this.nodeOf(target), options);
  }

  /** Takes a filter out again; what it filters takes its place. */
  removeFilter(filter: Target): Promise<void> {
    return removeFilter(this, this.nodeOf(filter));
  }

  /** All that use `from` use `to` from then on (BL-CHAIN-13); `from` closes if nobody holds it. */
  replace(from: Target, to: Target): Promise<void> {
    return replaceNode(this, this.nodeOf(from), this.nodeOf(to));
  }

  /** Makes an overlay file and puts it on top: what is there stays as it is, and what is written goes into the overlay. */
  snapshot(target: Target, filename: string, options: SnapshotOptions = {}): Promise<BlockNode> {
    return snapshot(this, this.nodeOf(target), filename, options);
  }

  /** Changes options of open nodes, of all or of none (BL-REOPEN-3): `reopen([{ node, options: { 'read-only': true } }])`. */
  reopen(changes: readonly ReopenChange[]): Promise<void> {
    return reopen(
      this,
      changes.map((change) => ({ ...change, node: this.nodeOf(change.node) })),
    );
  }

  /** The node that is meant. Throws BlockError ENODEV for a name that none has. */
  nodeOf(target: Target): BlockNode {
    if (typeof target === 'string') return this.lookUp(target);
    return target instanceof BlockNode ? target : target.node;
  }

  /** All open nodes, in the order they were opened (BL-INFO-12). */
  nodes(): BlockNode[] {
    return [...this.#nodes.values()];
  }

  node(name: string): BlockNode | undefined {
    return this.#nodes.get(name);
  }

  /** A checked name for a new node, or a generated one that no user can type (BL-OPEN-20). */
  claimName(given: string | undefined): string {
    if (given === undefined) {
      const digits = new Uint8Array(1);
      this.host.random(digits);
      return `#block${this.#unnamed++}${String((digits[0] ?? 0) % 100).padStart(2, '0')}`;
    }
    if (!/^[A-Za-z][A-Za-z0-9._-]*$/.test(given)) throw new BlockError('EINVAL', `Invalid node-name: '${given}'`);
    if (this.devices.get(given) !== undefined) {
      throw new BlockError('EINVAL', `node-name=${given} is conflicting with a device id`);
    }
    if (this.#nodes.has(given)) throw new BlockError('EINVAL', `Duplicate nodes with node-name='${given}'`);
    if (given.length > NODE_NAME_MAX) throw new BlockError('EINVAL', 'Node name too long');
    return given;
  }

  register(node: BlockNode): void {
    this.#nodes.set(node.name, node);
  }

  /** Publishes an event if anyone listens (see events.ts for the channels). */
  emit<C extends keyof Events>(channel: C, message: Events[C]): void {
    if (this.host.watched(channel)) this.host.publish(channel, message);
  }

  /** Links a parent to a node and takes the permissions; on refusal nothing stays linked. */
  attach(
    name: string,
    parent: BlockNode | GraphUser,
    node: BlockNode,
    role: ChildRole,
    wanted: Permissions | undefined,
  ): Link {
    return this.change((transaction) => {
      const link = addLink(transaction, name, parent, node, role);
      if (wanted !== undefined) {
        link.pending = wanted;
        updatePermissions(transaction, [node]);
      } else if (parent instanceof BlockNode) updatePermissions(transaction, [parent]);
      return link;
    });
  }

  /** Changes what a user's link holds. */
  changePermissions(link: Link, wanted: Permissions): void {
    const { need, share } = link.held;
    const loosens = (wanted.need & ~need) === 0 && (share & ~wanted.share) === 0;
    link.pending = wanted;
    transact((transaction) => updatePermissions(transaction, [link.node], { loosens }));
  }

  /** A change as a whole, or none of it; drains under way follow it, and names and limits are made anew. */
  change<T>(work: (transaction: Transaction) => T): T {
    let touched: readonly BlockNode[] = [];
    const result = transact((transaction) => {
      const done = work(transaction);
      touched = transaction.touched();
      return done;
    });
    for (const drain of this.#drains) drain.follow();
    refreshAbove(touched);
    return result;
  }

  /** Drops a link; a node without parents is closed, with all below it. Resources are freed even if closing fails. */
  async detach(link: Link): Promise<void> {
    this.change((transaction) => {
      dropLink(transaction, link);
      // What is closed keeps its locks until it is.
      if (link.node.inUse) updatePermissions(transaction, [link.node], { loosens: true });
    });
    await this.closeUnused([link.node]);
  }

  /** Takes a reference without a link (BL-CLOSE-1). */
  hold(node: BlockNode): void {
    node.holds++;
  }

  /** Drops one; the last closes the node. TypeError if none was taken. */
  async release(node: BlockNode): Promise<void> {
    if (node.holds === 0) throw new TypeError(`node '${node.name}' is not held`);
    node.holds--;
    await this.closeUnused([node]);
  }

  /** Takes a reference for as long as some work needs the node, which then drops it by {@link unpin}. */
  pin(node: BlockNode): void {
    node.pins++;
  }

  async unpin(node: BlockNode): Promise<void> {
    node.pins--;
    await this.closeUnused([node]);
  }

  /** Throws BlockError ENOMEDIUM for a node that was closed, perhaps while its user waited for something. */
  requireOpen(...nodes: readonly (BlockNode | undefined)[]): void {
    for (const node of nodes) {
      if (node === undefined || this.#nodes.get(node.name) === node) continue;
      throw new BlockError('ENOMEDIUM', `Node '${node.name}' is closed`, { node: node.name });
    }
  }

  /** Closes those of `nodes` that nobody uses, all of them, and throws the first failure. */
  async closeUnused(nodes: readonly BlockNode[]): Promise<void> {
    const failures: unknown[] = [];
    for (const node of nodes) {
      if (!node.inUse) await this.closeNode(node).catch((error) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }

  /** The same for what a change has left behind: that is made, and was flushed before, so a failure is only noted. */
  async closeLeft(nodes: readonly BlockNode[]): Promise<void> {
    await this.closeUnused(nodes).catch((error) => {
      this.host.notice(`closing what is not used any more: ${error instanceof Error ? error.message : error}`);
    });
  }

  /** Closes a node that nobody uses (BL-CLOSE-2), after what is being done with its part of the graph. */
  closeNode(node: BlockNode): Promise<void> {
    const underWay = this.#closings.get(node);
    if (underWay !== undefined) return underWay;
    if (this.#nodes.get(node.name) !== node) return Promise.resolve();
    const closing = this.#close(node).finally(() => this.#closings.delete(node));
    this.#closings.set(node, closing);
    return closing;
  }

  async #close(node: BlockNode): Promise<void> {
    const failures: unknown[] = [];
    const left = await this.control.run('shared', [node], async () => {
      // Someone may have taken hold of it while this waited.
      if (node.inUse) {
        transact((transaction) => updatePermissions(transaction, [node], { loosens: true }));
        return undefined;
      }
      node.closing = true;
      this.#nodes.delete(node.name);
      await finish(node, failures);
      return this.#dropChildren(node);
    });
    if (left === undefined) return;
    await this.closeUnused(left).catch((error) => failures.push(error));
    this.emit('diskwright:node:close', { node: node.name, driver: node.driver.name, filename: node.filename });
    if (failures.length > 0) throw failures[0];
  }

  /** In the order of BL-CLOSE-2, and even where a job has frozen a link. Returns the children. */
  #dropChildren(node: BlockNode): BlockNode[] {
    const links = closingOrder(node);
    const children = [...new Set(links.map((link) => link.node))];
    this.change((transaction) => {
      for (const link of links) {
        link.frozen = false;
        dropLink(transaction, link);
      }
      const used = children.filter((child) => child.inUse);
      updatePermissions(transaction, used, { loosens: true });
    });
    // Those that were below it through a filter, or had to make room for another (BL-CLOSE-6).
    for (const other of this.#nodes.values()) {
      if (other.origin.inheritsFrom === node) other.origin = { ...other.origin, inheritsFrom: undefined };
    }
    return children;
  }

  /**
   * Takes the media out of all devices, drops all that callers hold and closes all that is then unused (BL-CLOSE-4). EBUSY
   * if a node remains, for a disk or a job that is not closed.
   */
  async closeAll(): Promise<void> {
    const failures: unknown[] = [];
    (await this.drain(...this.nodes())).end();
    for (const device of this.devices.all()) {
      await device.remove({ force: true }).catch((error) => failures.push(error));
    }
    for (const node of this.nodes().reverse()) {
      node.holds = 0;
      await this.closeUnused([node]).catch((error) => failures.push(error));
    }
    await Promise.all([...this.#closings.values()].map((closing) => closing.catch((error) => failures.push(error))));
    if (failures.length > 0) throw failures[0];
    const [left] = this.nodes();
    if (left !== undefined) throw new BlockError('EBUSY', `Node '${left.name}' is still in use`, { node: left.name });
  }

  /**
   * Holds back new requests of users of `nodes` and waits until nothing is under way there or above (BL-CTX-5), also
   * in parents that a change adds meanwhile. Nests; every drain needs its `end`.
   */
  async drain(...nodes: readonly BlockNode[]): Promise<Drain> {
    const drain = new Drain(nodes, () => this.#drains.delete(drain));
    this.#drains.add(drain);
    await drain.whenIdle();
    return drain;
  }

  /** Runs `work` with no request of users beside it, nor other such work, nor a change of this part of the graph. */
  async alone<T>(node: BlockNode, work: () => Promise<T>): Promise<T> {
    return this.control.run('alone', [node], async () => {
      this.requireOpen(node);
      const drain = await this.drain(node);
      try {
        return await work();
      } finally {
        drain.end();
      }
    });
  }
}
