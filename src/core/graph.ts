/** The graph: its drivers, its nodes and their names, links being made and dropped, drains. */

import { Disk, type OpenOptions } from './disk.ts';
import type { DriverSpec } from './driver.ts';
import { BlockError } from './errors.ts';
import type { Events } from './events.ts';
import type { Host } from './host.ts';
import { BlockNode, type GraphUser, Link } from './node.ts';
import { openNode } from './open.ts';
import { flattenOptions, type NestedOptions, type OptionTree } from './options.ts';
import { updatePermissions } from './permission-update.ts';
import type { ChildRole, Permissions } from './permissions.ts';
import * as request from './request.ts';

export interface GraphOptions {
  readonly host: Host;
  /** Registered in this order; look-ups and probes go from the last to the first (BL-DRV-1). */
  readonly drivers: readonly DriverSpec[];
  /** Driver names that may be opened at all, and read-only (BL-DRV-4). Both absent or empty: all. */
  readonly whitelist?: { readonly readWrite: readonly string[]; readonly readOnly: readonly string[] };
}

/** Longest node name that can be typed (BL-OPEN-20). */
const NODE_NAME_MAX = 31;

export class Graph {
  readonly host: Host;
  /** Newest first. */
  readonly drivers: readonly DriverSpec[];
  readonly whitelist: { readonly readWrite: readonly string[]; readonly readOnly: readonly string[] };
  /** By name, in the order they were opened. */
  readonly #nodes = new Map<string, BlockNode>();
  #unnamed = 0;

  constructor(options: GraphOptions) {
    this.host = options.host;
    this.drivers = [...options.drivers].reverse();
    this.whitelist = options.whitelist ?? { readWrite: [], readOnly: [] };
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
    const tree: OptionTree = typeof source === 'string' ? {} : flattenOptions(source);
    const node = await openNode(this, { filename: typeof source === 'string' ? source : undefined, tree, options });
    return Disk.attach(this, node, options);
  }

  /** A further disk on a node that is open already, found by its name (BL-OPEN-2). ENODEV if there is none. */
  async openReference(name: string, options: OpenOptions = {}): Promise<Disk> {
    const node = this.#nodes.get(name);
    if (node === undefined || !node.isOpen) {
      throw new BlockError('ENODEV', `Cannot find device='${name}' nor node-name='${name}'`);
    }
    return Disk.attach(this, node, options);
  }

  /** All open nodes, in the order they were opened. */
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
    const link = new Link(name, parent, node, role);
    node.parents.unshift(link);
    if (parent instanceof BlockNode) parent.children.unshift(link);
    try {
      if (wanted !== undefined) {
        link.pending = wanted;
        updatePermissions([node]);
      } else if (parent instanceof BlockNode) updatePermissions([parent]);
    } catch (error) {
      this.#unlink(link);
      throw error;
    }
    return link;
  }

  /** Changes what a user's link holds. */
  changePermissions(link: Link, wanted: Permissions): void {
    link.pending = wanted;
    updatePermissions([link.node]);
  }

  /** Drops a link; a node without parents is closed, with all below it. Resources are freed even if closing fails. */
  async detach(link: Link): Promise<void> {
    this.#unlink(link);
    if (link.node.parents.length === 0) await this.closeNode(link.node);
    else updatePermissions([link.node]);
  }

  /** Closes a node that nobody uses. */
  async closeNode(node: BlockNode): Promise<void> {
    if (this.#nodes.get(node.name) !== node) return;
    this.#nodes.delete(node.name);
    const failures: unknown[] = [];
    const attempt = async (step: () => Promise<void> | undefined) => {
      try {
        await step();
      } catch (error) {
        failures.push(error);
      }
    };
    await node.tracker.whenIdle();
    if (node.isOpen) {
      if (node.writable) await attempt(() => request.flush(node));
      await attempt(() => node.impl.close?.());
    }
    for (const link of [...node.children]) await attempt(() => this.detach(link));
    this.emit('diskwright:node:close', { node: node.name, driver: node.driver.name, filename: node.filename });
    if (failures.length > 0) throw failures[0];
  }

  /**
   * Holds back new requests of users of `node` and waits until nothing is under way there or above (BL-CTX-5).
   * Nests; every call needs its {@link resume}.
   */
  async drain(node: BlockNode): Promise<void> {
    const drained = withAncestors(node);
    for (const each of drained) each.drainDepth++;
    while (drained.some((each) => !each.tracker.idle)) {
      for (const each of drained) await each.tracker.whenIdle();
    }
  }

  resume(node: BlockNode): void {
    for (const each of withAncestors(node)) {
      each.drainDepth--;
      if (each.drainDepth === 0) each.wake();
    }
  }

  #unlink(link: Link): void {
    link.node.parents = link.node.parents.filter((other) => other !== link);
    if (link.parent instanceof BlockNode) {
      link.parent.children = link.parent.children.filter((other) => other !== link);
    }
  }
}

function withAncestors(node: BlockNode): BlockNode[] {
  const found = new Set<BlockNode>();
  const visit = (each: BlockNode) => {
    if (found.has(each)) return;
    found.add(each);
    for (const link of each.parents) if (link.parent instanceof BlockNode) visit(link.parent);
  };
  visit(node);
  return [...found];
}
