/** A node of the graph and the links between nodes. State only; what is done with it is in graph.ts and request.ts. */
import type { DiscardMode } from './cache.ts';
import type {
  CacheSettings,
  Child,
  DriverNode,
  DriverSpec,
  Limits,
  TruncateOptions,
  WriteFlags,
  ZeroFlags,
} from './driver.ts';
import { BlockError } from './errors.ts';
import { invariant } from './invariant.ts';
import type { OptionTree } from './options.ts';
import { ALL_PERMISSIONS, type ChildRole, NO_PERMISSIONS, Permission, type Permissions } from './permissions.ts';
import * as request from './request.ts';
import { RequestTracker } from './tracker.ts';

/** Layer-level settings of a node (BL-OPEN-4). */
export interface NodeSettings {
  readonly readOnly: boolean;
  readonly autoReadOnly: boolean;
  readonly forceShare: boolean;
  readonly noIO: boolean;
  readonly checkOnly: boolean;
  readonly salvage: boolean;
  readonly cache: CacheSettings;
  readonly discard: DiscardMode;
  readonly detectZeroes: 'off' | 'on' | 'unmap';
}

/** Options that reopen a node as it is (BL-REFRESH-1), nested. */
export interface FullOptions {
  readonly [key: string]: string | number | boolean | null | FullOptions;
}

export class BlockNode {
  readonly name: string;
  readonly driver: DriverSpec;
  readonly settings: NodeSettings;
  /** The driver's own options, as given (BL-OPEN-10). */
  readonly options: OptionTree;
  /** May be less than asked for: a driver with auto-read-only degrades. */
  writable: boolean;
  /** Set when the format was guessed and is raw: what must not appear in block 0 (BL-OPEN-16). */
  probesAsOther: ((head: Uint8Array) => boolean) | undefined;
  limits: Limits = request.DEFAULT_LIMITS;
  readonly tracker = new RequestTracker();
  /** Nested drains of this node (BL-CTX-5); requests of users wait while it is above 0. */
  drainDepth = 0;
  /** Changes begun, and how many of them the last completed flush covered. */
  writeGeneration = 0;
  flushedGeneration = 0;
  /** Links from parents and users, and links to children; newest first (BL-TERM-4). */
  parents: Link[] = [];
  children: Link[] = [];
  /** BL-REFRESH-1. */
  exactName = '';
  fullOptions: FullOptions | undefined;
  filename = '';
  #impl: DriverNode | undefined;
  #heldBack: (() => void)[] = [];

  constructor(name: string, driver: DriverSpec, settings: NodeSettings, options: OptionTree) {
    this.name = name;
    this.driver = driver;
    this.settings = settings;
    this.options = options;
    this.writable = !settings.readOnly;
  }

  /** The opened driver. */
  get impl(): DriverNode {
    invariant(this.#impl, `node '${this.name}' is not open`);
    return this.#impl;
  }

  set impl(opened: DriverNode) {
    this.#impl = opened;
  }

  get isOpen(): boolean {
    return this.#impl !== undefined;
  }

  /** Waits until no drain holds users' requests back. */
  async whenResumed(): Promise<void> {
    while (this.drainDepth > 0) await new Promise<void>((resolve) => this.#heldBack.push(resolve));
  }

  /** Lets the requests go on that a drain held back. */
  wake(): void {
    const waiting = this.#heldBack;
    this.#heldBack = [];
    for (const resolve of waiting) resolve();
  }

  child(name: string): Link | undefined {
    return this.children.find((link) => link.name === name);
  }

  /** Whether a write past the end makes it longer. */
  get growable(): boolean {
    return this.driver.kind === 'protocol' && this.driver.growable === true;
  }
}

/** A user of a node that is no node: a disk that a caller opened. */
export interface GraphUser {
  /** As messages name it. */
  readonly description: string;
}

/** A link from a node or a user to a node. To a driver it is its {@link Child}. */
export class Link implements Child {
  readonly name: string;
  readonly parent: BlockNode | GraphUser;
  readonly node: BlockNode;
  readonly role: ChildRole;
  /** What the parent holds now. */
  held: Permissions = { need: NO_PERMISSIONS, share: ALL_PERMISSIONS };
  /** What a change under way would make of it. */
  pending: Permissions | undefined;

  constructor(name: string, parent: BlockNode | GraphUser, node: BlockNode, role: ChildRole) {
    this.name = name;
    this.parent = parent;
    this.node = node;
    this.role = role;
  }

  get writable(): boolean {
    return (this.held.need & (Permission.write | Permission.writeUnchanged)) !== 0;
  }

  get growable(): boolean {
    return this.node.growable;
  }

  length(): number {
    return this.node.impl.length();
  }

  filename(): string {
    return this.node.filename;
  }

  limits(): Limits {
    return this.node.limits;
  }

  allocatedSize(): number | undefined {
    return request.allocatedSize(this.node);
  }

  zeroInit(): boolean {
    return this.node.impl.zeroInit?.() ?? false;
  }

  read(offset: number, target: Uint8Array): Promise<void> {
    return request.read(this.node, offset, target);
  }

  tryReadNow(offset: number, target: Uint8Array): boolean {
    return request.tryRead(this.node, offset, target);
  }

  write(offset: number, source: Uint8Array, flags: WriteFlags = request.NO_FLAGS): Promise<void> {
    return this.writable ? request.write(this.node, offset, source, flags) : this.#refuse();
  }

  tryWriteNow(offset: number, source: Uint8Array): boolean {
    return this.writable && request.tryWrite(this.node, offset, source);
  }

  writeZeroes(offset: number, length: number, flags: ZeroFlags = request.NO_FLAGS): Promise<void> {
    return this.writable ? request.writeZeroes(this.node, offset, length, flags) : this.#refuse();
  }

  discard(offset: number, length: number): Promise<void> {
    return this.writable ? request.discard(this.node, offset, length) : this.#refuse();
  }

  flush(): Promise<void> {
    return request.flush(this.node);
  }

  truncate(length: number, options: TruncateOptions = {}): Promise<void> {
    return this.writable ? request.truncate(this.node, length, options) : this.#refuse();
  }

  #refuse(): Promise<never> {
    return Promise.reject(new BlockError('EPERM', 'Block node is read-only', { node: this.node.name }));
  }
}
