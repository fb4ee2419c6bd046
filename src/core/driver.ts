/**
 * The driver contract. A driver is one literal object made with {@link defineProtocol}, {@link defineFormat} or
 * {@link defineFilter}; what it has is what it can, and what a filter leaves out passes through (filter.ts). A driver sees
 * only aligned, in-bounds, non-empty requests; the core (request.ts) aligns, splits, bounds, falls back and tracks, and
 * checks the contract on both sides of every call.
 */
import type { DiscardMode } from './cache.ts';
import type { ChangeTracker } from './change-tracker.ts';
import type {
  CreateSpec,
  FormatCreateContext,
  ImageStream,
  MeasureContext,
  Measurement,
  ProtocolCreateContext,
  StreamContext,
} from './driver-creation.ts';
import type { Extent, ExtentPlace, Limits } from './driver-ranges.ts';
import type {
  AmendContext,
  BlockSizes,
  CheckOptions,
  CheckReport,
  CompactOptions,
  DiskGeometry,
  DriverInfo,
} from './driver-reports.ts';
import type { DataFlags, TruncateOptions, WriteFlags, WriteKind, ZeroFlags } from './driver-requests.ts';
import type { DriverSnapshots, DriverVmState } from './driver-snapshots.ts';
import type { Host, HostContext, HostFile } from './host.ts';
import type { NewStorage } from './new-storage.ts';
import type { AnySchema, OptionTree, SchemaOf } from './options.ts';
import type { ChildRole, Permissions } from './permissions.ts';
import type { Rehearsal } from './rehearsal.ts';

export type * from './driver-creation.ts';
export type * from './driver-ranges.ts';
export type * from './driver-reports.ts';
export type * from './driver-requests.ts';
export type * from './driver-snapshots.ts';

/** Two steps of a change that may be refused in the first and must not fail in the second. */
export interface PendingChange {
  commit(): void;
  abort(): void;
}

/** A prepared reopen (BL-REOPEN-3): `commit` cannot wait or fail, so that many nodes change as one. */
export interface ReopenStep extends PendingChange {
  /** After all commits: what takes time, such as closing what was replaced. Errors are noted, not thrown. */
  finish?(): Promise<void>;
}

/** For a driver to which a reopen makes no difference. */
export const NO_REOPEN_STEP: ReopenStep = Object.freeze({ commit() {}, abort() {} });

/** What a node would be after a reopen. */
export interface ReopenTarget<O = unknown> extends Pick<OpenContext<O>, 'writable' | 'cache' | 'discard'> {
  /** Parsed and defaulted like at opening; options that the schema does not let a reopen change are as before. */
  readonly options: O;
}

/** What an image says of the image below it. */
export interface BackingReference {
  /** As stored, unresolved (BL-NAME-7). */
  readonly filename: string;
  /** Driver name; empty: not told. */
  readonly format: string;
  /** Further options that it is opened with, unless others are given for it. */
  readonly options?: OptionTree;
}

/** Events of blkdebug-like hooks (BL-DEBUG-2); a filter that has one has both. */
export interface DebugBreakpoints {
  breakpoint(event: string, tag: string): void;
  /** Of all breakpoints with this tag. ENOENT if there is none. */
  removeBreakpoint(tag: string): void;
  isSuspended(tag: string): boolean;
  resume(tag: string): void;
}

/**
 * An opened driver. Offsets and lengths are bytes, safe integers. Called in bounds, aligned to `limits()`, non-empty,
 * no longer than its maximums. Errors are BlockErrors. Several calls may be under way at once; overlapping ones too,
 * unless the core serialised them. Capabilities are methods that are there.
 */
export interface DriverNode {
  /** The disk's size now. Cheap: it is asked for every request. */
  length(): number;
  /** True: opened only for reading though writing was asked, as auto-read-only allowed. */
  readonly readOnly?: boolean;

  /** Fills `target`. The driver need not handle offsets past length(), the core has cut them. */
  read(offset: number, target: Uint8Array): Promise<void>;
  /** True: `target` is full. False: ask `read`; nothing happened but `target` is undefined. Never throws, never waits. */
  tryReadNow?(offset: number, target: Uint8Array): boolean;

  /** A protocol node that can grow is also asked to write past its end, and then is longer. */
  write?(offset: number, source: Uint8Array, flags: WriteFlags): Promise<void>;
  /** True: written (not durable). False: ask `write`; nothing happened. Never throws, never waits. */
  tryWriteNow?(offset: number, source: Uint8Array): boolean;
  /**
   * Whether `write`, or `writeZeroes`, makes what it is told durable by itself where the flag `fua` is set. Absent or false:
   * it never gets the flag, and the core flushes behind the request.
   */
  takesFua?(kind: WriteKind): boolean;
  /**
   * Stores whole units of the limit `compressUnit` compressed, or as they are where that saves nothing; the last one may end
   * with the disk. A filter that has it passes it on.
   */
  writeCompressed?(offset: number, source: Uint8Array): Promise<void>;
  /** May throw ENOTSUP for a request it cannot do cheaply; the core then writes zeroes as data, unless noFallback. */
  writeZeroes?(offset: number, length: number, flags: ZeroFlags): Promise<void>;
  /**
   * Zero writes and discards change more than one thing, so that nothing else may be done to their bytes meanwhile: the core
   * serialises them.
   */
  readonly clearsAlone?: boolean;
  /** A hint; ENOTSUP is ignored by the core. */
  discard?(offset: number, length: number): Promise<void>;
  /** Makes all completed writes durable, in this layer and its children. Default: the children are flushed. */
  flush?(): Promise<void>;

  /** Default: all data. */
  status?(offset: number, length: number): Promise<Extent>;
  /** The same at once, or undefined where it must wait. Never throws. */
  tryStatusNow?(offset: number, length: number): Extent | undefined;
  /**
   * A job begins that may be told status as it was at its beginning or later, so that answers may be kept until the
   * returned function is called. For drivers that are slow to ask, and not alone in writing.
   */
  holdStatus?(): () => void;

  limits?(): Partial<Limits>;
  /** Changes the disk's size (BL-SIZE-3). Protocols: the file's. */
  truncate?(length: number, options: TruncateOptions): Promise<void>;
  /** Bytes of host storage in use, where this node itself holds it (protocols). */
  allocatedSize?(): number | undefined;

  /** Protocols: the host's file that holds the node's bytes, each at its own offset. */
  hostFile?(): HostFile;
  /** Where the whole range is stored as it is read and written; undefined where the driver has more to do about it. */
  place?(offset: number, length: number): ExtentPlace | undefined;
  /** Storage to be given out (see {@link NewStorage}), while no request that changes the node is under way; undefined: not now. */
  newStorage?(): Promise<NewStorage | undefined>;

  /** Protocols: copies inside the host between two nodes of one driver. Resolves with the bytes copied; ENOTSUP: cannot. */
  copyFrom?(source: DriverNode, sourceOffset: number, offset: number, length: number): Promise<number>;

  /** Its own record of changes, which the image keeps: its list of dirty bitmaps, be there any now or not. */
  readonly tracker?: ChangeTracker;

  /** Undefined: nothing is known. */
  info?(): DriverInfo | undefined;
  check?(options: CheckOptions): Promise<CheckReport>;
  /**
   * Opens the image once more, over files that only keep in memory what is written, so that a repair is seen without
   * being made. The result is checked, flushed and closed. Presence says that the format has repairs.
   */
  rehearse?(files: Rehearsal): Promise<DriverNode>;
  /** Rewrites the image so that unused storage is given back, in place and crash-safe. */
  compact?(options: CompactOptions): Promise<void>;
  /** Whether a new image of this kind reads as zeroes where nothing was written (BL-INFO-3). Default no. */
  zeroInit?(): boolean;

  /** Told of every change of what the node's users need and share (BL-PERM-7); throws to refuse. */
  preparePermissions?(next: Permissions): PendingChange;
  /** Whether what is read is the child's data whatever happens, so that either may stand for the other (BL-FILTER-3). */
  showsChild?(child: string): boolean;
  /** What the driver needs of a child, where the rules for its role (BL-PERM-4, -5) do not say it. */
  childPermissions?(child: string, wanted: Permissions): Permissions;

  /** The first phase of a reopen; throws to refuse. Absent: the node cannot be reopened, save as it is (BL-REOPEN-4). */
  prepareReopen?(next: ReopenTarget): Promise<ReopenStep>;

  /** What the image names as the one below it; undefined: none. Formats with a `backing` child. */
  backing?(): BackingReference | undefined;
  /** Changes what the image names, and nothing else (BL-CHAIN-11). ENOSPC where there is no room. Durable after a flush. */
  changeBacking?(reference: BackingReference | undefined): Promise<void>;
  /**
   * Throws BlockError EPERM when the backing child is not, or is no longer, the image that this one was made over (V-50).
   * Asked before the backing child gets a writer: what is stored here does not fit it.
   */
  checkBacking?(): void;
  /** Drops all that this layer stores, so that the backing child shows; after a commit. */
  makeEmpty?(): Promise<void>;
  /** Changes format options of an existing image, given as text and checked to be among `amendOptions` (BL-INFO-15). */
  amend?(options: OptionTree, how: AmendContext): Promise<void>;

  /** An event that the core or a parent raised (BL-DEBUG-1). A promise holds up the request that raised it. */
  debugEvent?(event: string): Promise<void> | undefined;
  readonly breakpoints?: DebugBreakpoints;

  readonly snapshots?: DriverSnapshots;
  readonly vmState?: DriverVmState;

  /** Block sizes and geometry of the device that a protocol is over; undefined: not known. */
  blockSizes?(): BlockSizes | undefined;
  geometry?(): DiskGeometry | undefined;

  /** Removable media (BL-MEDIA): whether there is one, opening and closing the tray, keeping the user from it. */
  inserted?(): boolean;
  eject?(open: boolean): Promise<void>;
  lockMedium?(locked: boolean): Promise<void>;

  /** The node goes inactive or comes back (BL-MISC-3); caches that others may outdate are dropped or read anew. */
  inactivate?(): Promise<void>;
  activate?(): Promise<void>;

  /** The node is about to change its context (BL-CTX-2); throws to refuse. What begins after the commit runs there. */
  prepareContext?(next: HostContext | undefined): PendingChange;

  /** A drain above waits for requests: this node holds none back by choice until the result is called. */
  letPass?(): () => void;
  /** The node, and all that use it, are about to close: requests that it holds back by choice must end. */
  letGo?(): void;
  /** A drain begins: background work is to stop by itself; {@link resume} ends it. */
  quiesce?(): void;
  resume?(): void;

  /** Finishes: writes back what is cached. Called once, with no request under way; children are still open. */
  close?(): Promise<void>;
}

/**
 * A link from a driver to a child node, with the core's request path behind every call: any alignment, any length,
 * reads past the end give zeroes, writes past it grow a child that can grow. Needs the permissions the link holds.
 */
export interface Child {
  readonly name: string;
  length(): number;
  read(offset: number, target: Uint8Array): Promise<void>;
  tryReadNow(offset: number, target: Uint8Array): boolean;
  write(offset: number, source: Uint8Array, flags?: DataFlags): Promise<void>;
  tryWriteNow(offset: number, source: Uint8Array): boolean;
  writeZeroes(offset: number, length: number, flags?: ZeroFlags): Promise<void>;
  /** Whether such a request with `fua` makes durable what it writes, and nothing else; not: all is flushed behind it. */
  takesFua(kind: WriteKind): boolean;
  discard(offset: number, length: number): Promise<void>;
  flush(): Promise<void>;
  truncate(length: number, options?: TruncateOptions): Promise<void>;
  limits(): Limits;
  /** Bytes of storage in use; undefined when not known. */
  allocatedSize(): number | undefined;
  zeroInit(): boolean;
  /** The child's file name, for messages and for finding files beside it. */
  filename(): string;
  /** Whether writes past its end make it longer. Where they do not, a truncate still may. */
  readonly growable: boolean;
  /** False when the link holds no permission to write. */
  readonly writable: boolean;
}

/** What a driver's `open` is given. */
export interface OpenContext<O> {
  /** Parsed and defaulted by the driver's schema. */
  readonly options: O;
  /** The `file` child; in a filter, the child it filters. Present in both; reading it in a protocol is a programming error. */
  readonly file: Child;
  /** Any child by name, as it is linked now; undefined: there is none. The backing child comes after opening, and may change. */
  child(name: string): Child | undefined;
  /** What a child's driver tells of itself now, through filters; undefined: there is no such child. */
  childInfo(name: string): DriverInfo | undefined;
  /**
   * Opens a file that the image names as a child in `role`, by the policy for such names; the name is a plain one, whatever
   * it looks like. Throws BlockError. Only while the driver opens.
   */
  openNamed(name: string, role: ChildRole, filename: string): Promise<void>;
  /** The caller says what the backing child is, or that there is none: what the image names need not be found. */
  readonly backingGiven: boolean;
  readonly host: Host;
  /** The node's context; undefined: the main one. */
  readonly hostContext: HostContext | undefined;
  /** The node's name, for messages. */
  readonly node: string;
  /** Raises a debug event of this driver, for who listens below (BL-DEBUG-1); a promise must be waited for before the step. */
  event(name: string): Promise<void> | undefined;
  /** Has changes of the node's content and size told to a tracker, or no more. */
  track(tracker: ChangeTracker, tracked: boolean): void;
  /** Whether anyone listens. What goes around the child for speed, and so is not refused by it, must not then. */
  eventsHeard(): boolean;
  /** Whether the node may be written. A driver that cannot write this image throws EACCES or ENOTSUP. */
  readonly writable: boolean;
  /** A driver that can only offer reading may degrade instead of failing (BL-OPEN-22); it then says so by `readOnly`. */
  readonly autoReadOnly: boolean;
  /** Another program has the image still: nothing may be written before `activate` (BL-OPEN-9). */
  readonly inactive: boolean;
  /** An image names what is opened: it may be hostile, and must not choose files beyond it. */
  readonly namedByImage: boolean;
  /** Only information is wanted: data will not be read, bulky metadata should not be loaded (V-4). */
  readonly noIO: boolean;
  /** Opened for a check: tolerate what the check will report. */
  readonly checkOnly: boolean;
  /** Opened to save what can be saved: tolerate damage where reading goes on (V-63). */
  readonly salvage: boolean;
  /** Whether users' discards are passed to this node (BL-OPEN-26). */
  readonly discard: DiscardMode;
  readonly cache: CacheSettings;
  readonly signal: AbortSignal | undefined;
}

/** How the cache is used, as drivers are told. */
export interface CacheSettings {
  /** False: every write is followed by a flush (done by the core). */
  readonly writeBack: boolean;
  /** Bypass the host's cache. */
  readonly direct: boolean;
  /** Flushes are ignored (done by the core). */
  readonly noFlush: boolean;
}

/** A child that a driver opens beside `file`, from the options `NAME.*` or a reference `NAME`. */
export interface ChildSpec<O> {
  readonly role: ChildRole | ((options: O) => ChildRole);
  /** Opening goes on without it. Default: `A block device must be specified for "NAME"`. */
  readonly optional?: boolean;
  /** Opened below the format level, without probing. Default: as the role says (BL-OPEN-27). */
  readonly protocolLevel?: boolean;
}

interface DriverBase<O> {
  /** As in `driver=NAME`. */
  readonly name: string;
  readonly summary: string;
  readonly options: SchemaOf<O>;
  /** In the order they are opened. */
  readonly children?: Readonly<Record<string, ChildSpec<O>>>;
  /** Debug events the driver raises. */
  readonly events?: readonly string[];
  /** Options that decide what data is seen; only these enter `json:` names (BL-REFRESH-6). */
  readonly strongOptions?: readonly string[];
}

/** A driver of bytes from somewhere; see {@link defineProtocol}. */
export interface ProtocolSpec<O = unknown, C = unknown> extends DriverBase<O> {
  readonly kind: 'protocol';
  /** Score of a whole file name as this driver's device (BL-DRV-7). 0: no. */
  probeDevice?(filename: string, host: Host, context?: HostContext): Promise<number>;
  /** Turns `NAME:rest` (or a name without prefix, for `file`) into options (BL-OPEN-8). */
  parseFilename?(filename: string): OptionTree;
  /** The plain name that opening alone gives the same data, from the options given (BL-REFRESH-1). */
  exactFilename?(options: OptionTree): string | undefined;
  /** The driver needs a file name (BL-OPEN-18, step 2). */
  readonly needsFilename?: boolean;
  /** Prefixes of file names that lead to it, besides its name; in lower case, told apart without regard to case. */
  readonly prefixes?: readonly string[];
  /** It makes nothing, but what a name leads to can take a new image. */
  readonly reusable?: boolean;
  /** Writes past the end make it longer. */
  readonly growable?: boolean;
  readonly create?: CreateSpec<C, ProtocolCreateContext<C>>;
  open(context: OpenContext<O>): Promise<DriverNode>;
}

/** A driver of a disk inside a file; see {@link defineFormat}. */
export interface FormatSpec<O = unknown, C = unknown> extends DriverBase<O> {
  readonly kind: 'format';
  /** How sure the driver is, 0 to 100, from the file's first bytes (zero-padded) and its name. Pure (BL-OPEN-14). */
  probe?(head: Uint8Array, filename: string): number;
  /** What the `file` child is to the driver. Default `image`. */
  readonly fileRole?: (options: O) => ChildRole;
  /** Its nodes have `writeCompressed`. */
  readonly compresses?: boolean;
  /** False: an open image cannot be handed to another program and back (V-16). Default true. */
  readonly migratable?: false;
  /** Images name another one below them, which is opened as the `backing` child. */
  readonly supportsBacking?: boolean;
  /** Creation options of an overlay that names nothing below it; presence says that there are such (BL-OPEN-28). */
  readonly temporaryOverlay?: OptionTree;
  readonly create?: CreateSpec<C, FormatCreateContext<C>>;
  /** Options that can be changed in an existing image (BL-INFO-15); its nodes have `amend`. */
  readonly amendOptions?: AnySchema;
  /** Making one is making the file: all options, the size too, go to the protocol, and `create.run` is not called (raw). */
  readonly createsThroughProtocol?: boolean;
  measure?(context: MeasureContext<C>): Promise<Measurement>;
  /** Plans an image that is written front to back. Throws BlockError ENOTSUP for options that keep it from being so. */
  stream?(context: StreamContext<C>): Promise<ImageStream>;
  open(context: OpenContext<O>): Promise<DriverNode>;
}

/** What a filter's own form of file name says. */
export interface FilterName {
  readonly options: OptionTree;
  /** File names of children. */
  readonly children: Readonly<Record<string, string>>;
}

/** A driver of the same disk with other behaviour; see {@link defineFilter}. */
export interface FilterSpec<O = unknown> extends DriverBase<O> {
  readonly kind: 'filter';
  /** The child it filters. Default `file`. */
  readonly filters?: string;
  /** It has no folder for names stored in images: its children may lie in several. */
  readonly noFolder?: boolean;
  /** Such a filter takes itself out when its work is done, so that no chain may be frozen with it inside (BL-CHAIN-17). */
  readonly mayGo?: boolean;
  /** Turns `NAME:rest` into options and names of children; presence lets the filter be named so (BL-OPEN-8). */
  parseFilename?(filename: string): FilterName;
  /** The name that opening alone gives the same node, from the options and the children's exact names; undefined: none. */
  exactFilename?(options: OptionTree, child: (name: string) => string): string | undefined;
  /** Filters make no images. */
  readonly create?: undefined;
  readonly needsFilename?: undefined;
  /** What is left out passes through; one with `read` and no `tryReadNow` is never answered at once, and shows no status. */
  open(context: OpenContext<O>): Promise<Partial<DriverNode>>;
}

/** Any driver, as graphs take them. */
export type DriverSpec = ProtocolSpec<never, never> | FormatSpec<never, never> | FilterSpec<never>;

/** A driver that opens by itself and reaches real storage. */
export function defineProtocol<O, C = never>(spec: Omit<ProtocolSpec<O, C>, 'kind'>): ProtocolSpec<O, C> {
  return { ...spec, kind: 'protocol' };
}

/** A driver that shows its child's data unchanged, and does something else besides. */
export function defineFilter<O>(spec: Omit<FilterSpec<O>, 'kind'>): FilterSpec<O> {
  return { ...spec, kind: 'filter' };
}

/** A driver that interprets a `file` child. */
export function defineFormat<O, C = never>(spec: Omit<FormatSpec<O, C>, 'kind'>): FormatSpec<O, C> {
  return { ...spec, kind: 'format' };
}
