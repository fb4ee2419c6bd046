/** A node of the graph and the links between nodes. State only; what is done with it is in graph.ts and request.ts. */
import type { DiscardMode } from './cache.ts';
import type { ChangeTracker } from './change-tracker.ts';
import type { ContextNotifier } from './context.ts';
import type {
  BackingReference,
  CacheSettings,
  Child,
  DataFlags,
  DriverNode,
  DriverSpec,
  Limits,
  TruncateOptions,
  WriteKind,
  ZeroFlags,
} from './driver.ts';
import { BlockError } from './errors.ts';
import type { HostContext } from './host.ts';
import * as information from './info.ts';
import { InvariantError } from './invariant.ts';
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

/** How an option came to a node, for a reopen that keeps what it does not change (BL-REOPEN-2). */
export interface NodeOrigin {
  /** All options given for this node itself, by the caller or in a `json:` name; those of children are theirs. */
  readonly explicit: OptionTree;
  /** The parent it was opened for, whose settings it takes on (BL-TERM-4); not for references. */
  readonly inheritsFrom: BlockNode | undefined;
  /** Opened below the format level (BL-OPEN-5). */
  readonly protocolLevel: boolean;
}

export class BlockNode {
  readonly name: string;
  readonly driver: DriverSpec;
  settings: NodeSettings;
  /** The driver's own options, as given (BL-OPEN-10). */
  options: OptionTree;
  origin: NodeOrigin;
  /** May be less than asked for: a driver with auto-read-only degrades. */
  writable: boolean;
  /** Set when the format was guessed and is raw: what must not appear in block 0 (BL-OPEN-16). */
  probesAsOther: ((head: Uint8Array) => boolean) | undefined;
  limits: Limits = request.DEFAULT_LIMITS;
  readonly tracker = new RequestTracker();
  /** Nested drains of this node (BL-CTX-5); requests of users wait while it is above 0. */
  drainDepth = 0;
  /** Who makes its blocking system calls; undefined: the main context (BL-CTX-1). Changed only by context.ts. */
  context: HostContext | undefined;
  contextNotifiers: readonly ContextNotifier[] = [];
  /** The length that users were last told. */
  toldLength = -1;
  /** Changes begun, and how many of them the last completed flush covered. */
  writeGeneration = 0;
  flushedGeneration = 0;
  /** How many of them the last flush of which events told could cover (BD-41). */
  raisedGeneration = 0;
  /** Links from parents and users, and links to children; newest first (BL-TERM-4). Replaced, never changed in place. */
  parents: readonly Link[] = [];
  children: readonly Link[] = [];
  /** References held by a caller without a link (BL-CLOSE-1). */
  holds = 0;
  /** References of work under way, which ends by itself: whoever opens a node has one until it is linked (BL-TERM-9). */
  pins = 0;
  /** Being opened: nobody finds it by its name yet. */
  opening = false;
  /** Being closed, or closed: it gets no links any more. */
  closing = false;
  /** Opened without the backing file that it names, or could not open it (BL-CHAIN-6). */
  noBacking = false;
  /** The name that the header implies for the backing child, resolved; empty: none (BL-CHAIN-3). */
  automaticBackingName = '';
  /** Made by the core for its own ends; shown as its child (BL-REFRESH-6). */
  implicit = false;
  /** A temporary overlay (BL-OPEN-28). */
  temporary = false;
  /** Users that asked for copy-on-read (BL-OPEN-24). */
  copyOnRead = 0;
  /** Reads for them, while there are any. */
  copyingRead: ((offset: number, target: Uint8Array) => Promise<void>) | undefined;
  /** Given up to another program, until it is activated (BL-MISC-3). */
  inactive = false;
  /** Bytes from the start; 0: none. A write behind it is told of. */
  writeThreshold = 0;
  /** Told of changes of content and size: dirty bitmaps. */
  trackers: readonly ChangeTracker[] = [];
  /** BL-REFRESH-1. */
  exactName = '';
  fullOptions: FullOptions | undefined;
  filename = '';
  #impl: DriverNode | undefined;
  #heldBack: (() => void)[] = [];

  constructor(name: string, driver: DriverSpec, settings: NodeSettings, options: OptionTree, origin: NodeOrigin) {
    this.name = name;
    this.driver = driver;
    this.settings = settings;
    this.options = options;
    this.origin = origin;
    this.writable = !settings.readOnly;
  }

  /** The opened driver. */
  get impl(): DriverNode {
    return this.#impl ?? this.#notOpen();
  }

  /** Apart, since the driver is asked for in every request. */
  #notOpen(): never {
    throw new InvariantError(`node '${this.name}' is not open`);
  }

  set impl(opened: DriverNode) {
    this.#impl = opened;
    if (this.drainDepth > 0) opened.quiesce?.();
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
    if (this.driver.kind === 'filter') return this.filtered?.node.growable ?? false;
    return this.driver.kind === 'protocol' && this.driver.growable === true;
  }

  /** The link to the child that a filter filters. */
  get filtered(): Link | undefined {
    return this.driver.kind === 'filter' ? this.child(this.driver.filters ?? 'file') : undefined;
  }

  /** The link to the image below this one in its chain (BL-TERM-5: the copy-on-write child). */
  get backing(): Link | undefined {
    return this.children.find((link) => link.role === 'cow');
  }

  /** What holds this node's data, where one child does: the filtered child, or the file of a format (BL-TERM-5). */
  get primary(): Link | undefined {
    const plain = this.children.find(({ role }) => role === 'image' || role === 'filtered');
    return this.filtered ?? plain ?? this.children.find(({ role }) => role === 'data');
  }

  /** The name of the device it is in; empty: in none (BL-INFO-9). */
  get deviceName(): string {
    for (const { parent } of this.parents) {
      if (!(parent instanceof BlockNode) && parent.deviceName !== undefined) return parent.deviceName;
    }
    return '';
  }

  get deviceOrNodeName(): string {
    return this.deviceName || this.name;
  }

  /** Used by a parent or held by a caller. */
  get inUse(): boolean {
    return this.parents.length > 0 || this.holds > 0 || this.pins > 0;
  }

  /** What the image itself names as the one below it, unresolved (BL-NAME-7). */
  get storedBacking(): BackingReference | undefined {
    return this.isOpen ? this.impl.backing?.() : undefined;
  }
}

/** A node, or what shows one: a disk, a device's medium. */
export type NodeTarget = BlockNode | { readonly node: BlockNode };

export function nodeOf(target: NodeTarget): BlockNode {
  return target instanceof BlockNode ? target : target.node;
}

/** A user of a node that is no node: a disk that a caller opened, a device, a job. */
export interface GraphUser {
  /** As messages name it. */
  readonly description: string;
  /** Of a device: its name, by which messages about its node call it. */
  readonly deviceName?: string | undefined;
  /** It works with this very node: its links stay when those of others are moved (BL-CHAIN-12, BL-CHAIN-13). */
  readonly stays?: boolean;
  /** It keeps its node in the context that it is in (BL-CTX-4). */
  readonly fixedContext?: boolean;
  /** The node that it uses has another length now. */
  resized?(length: number): void;
  /** The node goes inactive: a user that can let go of writing does so (BL-MISC-3). */
  inactivate?(): void;
  /** It is active again. Throws BlockError to refuse. */
  activate?(): void;
}

/** A link from a node or a user to a node. To a driver it is its {@link Child}. */
export class Link implements Child {
  readonly name: string;
  readonly parent: BlockNode | GraphUser;
  /** Changed only by graph-change.ts. */
  node: BlockNode;
  readonly role: ChildRole;
  /** A job needs the link to stay as it is (BL-CHAIN-17). */
  frozen = false;
  /** Why the node's operations are blocked, where the link blocks any (BL-CHAIN-2). */
  blockReason: { readonly text: string } | undefined;
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
    return information.allocatedSize(this.node);
  }

  zeroInit(): boolean {
    return information.zeroInit(this.node);
  }

  read(offset: number, target: Uint8Array): Promise<void> {
    return request.read(this.node, offset, target);
  }

  tryReadNow(offset: number, target: Uint8Array): boolean {
    return request.tryRead(this.node, offset, target);
  }

  write(offset: number, source: Uint8Array, flags: DataFlags = request.NO_FLAGS): Promise<void> {
    return this.writable ? request.write(this.node, offset, source, flags) : this.#refuse();
  }

  tryWriteNow(offset: number, source: Uint8Array): boolean {
    return this.writable && request.tryWrite(this.node, offset, source);
  }

  writeZeroes(offset: number, length: number, flags: ZeroFlags = request.NO_FLAGS): Promise<void> {
    if (!this.writable) return this.#refuse();
    // What users ask for is done; between nodes `discard` decides, as in QEMU's programs.
    const unmap = flags.unmap === true && this.node.settings.discard === 'unmap';
    return request.writeZeroes(this.node, offset, length, { ...flags, unmap });
  }

  takesFua(kind: WriteKind): boolean {
    return this.node.impl.takesFua?.(kind) === true;
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
