/**
 * What the engine needs from the world around it. The Node host, the simulated host and a browser's host
 * differ only here; nothing else in the core, the drivers or the jobs touches files, time or chance.
 */
import type { ByteStream } from './byte-stream.ts';
import type { BulkLanes } from './host-bulk.ts';
import type { HostCrypto } from './host-crypto.ts';
import type { ClientTls, ClientTlsRequest, ConnectOptions, ServerAddress } from './host-network.ts';

/** How a file is opened. */
export interface HostFileMode {
  readonly write: boolean;
  /** `never`: the file must exist. `truncate`: made if absent, emptied if not. `new`: made, EEXIST if there. */
  readonly create?: 'never' | 'truncate' | 'new';
  /** Permission bits of a file that is made. Default 0o644, less the process's umask. */
  readonly createMode?: number;
  /** Bypass the host's page cache. Fails with EINVAL where it cannot be done. */
  readonly direct?: boolean;
  /** Which way requests go: `threads` always through the pool, `auto` at once when the host knows they will not wait. */
  readonly aio?: 'auto' | 'threads';
  /** Whose threads open the file and make its blocking calls from then on. Default: the main context. */
  readonly context?: HostContext | undefined;
}

/**
 * Threads of its own for the blocking system calls of some files, so that a disk that hangs holds up nothing else
 * (BL-CTX-5). What is called back is called on the event loop as ever. The main context, whose threads all other files
 * share, has no such object: `undefined` stands for it.
 */
export interface HostContext {
  /** For messages. */
  readonly name: string;
  /**
   * Ends the threads, and resolves when none of them is left: a call that hangs holds this up. Throws EBUSY while files
   * are in the context, ECANCELED in what comes after it.
   */
  close(): Promise<void>;
}

/** Options of a context. */
export interface HostContextOptions {
  /** The most system calls that run at once, 1 to 64; further ones wait for their turn. Default 4. */
  readonly threads?: number;
}

/** What a file is. */
export type HostFileKind = 'regular' | 'block' | 'character' | 'pipe' | 'directory' | 'other';

/** What is known of a file by its name. */
export interface HostFileInfo {
  readonly kind: HostFileKind;
  /** Bytes. For a block device, its capacity. */
  readonly size: number;
  /** Bytes of storage in use, where the host can tell. */
  readonly allocated: number | undefined;
  /** Equal for two names of one file: device and inode. */
  readonly identity: string;
}

/** A run of a file that is stored, or a hole that reads as zeroes. */
export interface HostExtent {
  readonly kind: 'data' | 'hole';
  readonly length: number;
}

/** Who holds a lock that stands in our way, as far as the host can find out. */
export interface LockHolder {
  readonly pid: number;
  readonly command: string;
  /** It is this process. */
  readonly own?: boolean;
}

/**
 * An open file. Offsets and lengths are bytes. Methods that need what the host lacks throw BlockError ENOTSUP;
 * callers then fall back. All errors are BlockErrors with an errno name as code.
 */
export interface HostFile {
  readonly kind: HostFileKind;
  /** What offsets, lengths and memory of requests must be a multiple of: 1, or more with `direct`. */
  readonly requestAlign: number;

  size(): number;
  /** Bytes of storage in use; undefined when the host cannot tell. */
  allocated(): number | undefined;

  /** Fills `target` from `offset`; resolves with the bytes read, fewer than asked only at the end of the file. */
  read(offset: number, target: Uint8Array): Promise<number>;
  /** The same at once, or -1 when that would mean waiting. Never throws. A short count means the end of the file. */
  tryReadNow(offset: number, target: Uint8Array): number;
  /** Writes all of `source`; on error some of it may have been written. */
  write(offset: number, source: Uint8Array): Promise<void>;
  /** True: written, into the host's cache at least. False: nothing happened. Never throws. */
  tryWriteNow(offset: number, source: Uint8Array): boolean;
  /** Makes everything written before the call durable (fdatasync). */
  flush(): Promise<void>;

  truncate(length: number): Promise<void>;
  /** Reserves storage for the range, growing the file if it must; content reads as before, or zero. */
  allocate(offset: number, length: number): Promise<void>;
  /** Frees the storage of the range, which then reads as zeroes; the size stays. */
  punchHole(offset: number, length: number): Promise<void>;
  /** Makes the range read as zeroes without writing them, keeping its storage; grows the file if it must. */
  zeroRange(offset: number, length: number): Promise<void>;
  /** Tells the storage below that the range is not needed; what it reads as then is not known. Default: punchHole. */
  discard?(offset: number, length: number): Promise<void>;
  /**
   * What is stored from `offset` on: one run, at most `length` long. Without means to find out: all data.
   * Undefined where it might take waiting to find out; then there is {@link findExtent}.
   */
  extent(offset: number, length: number): HostExtent | undefined;
  /** The same, in the file's context. */
  findExtent?(offset: number, length: number): Promise<HostExtent>;
  /** Copies inside the host from another of its files; resolves with the bytes copied (0: at source's end), or throws ENOTSUP. */
  copyFrom(source: HostFile, sourceOffset: number, offset: number, length: number): Promise<number>;

  /**
   * Takes or drops an advisory lock of this open file on a byte range, at once. False when another holder is in the way.
   * Throws ENOTSUP when the host has no locks that belong to open files.
   */
  lock(kind: 'shared' | 'exclusive' | 'none', offset: number, length: number): boolean;
  /** Whether a lock of `kind` on the range would be refused now because of another holder. */
  isLocked(kind: 'shared' | 'exclusive', offset: number, length: number): boolean;
  /** The holder of a lock on the range, if the host can find out. May be slow; for error messages. */
  lockHolder(offset: number, length: number): LockHolder | undefined;

  /** Extent size hint in bytes (XFS); 0: none. Absent: the host has none. */
  extentSizeHint?(): number;
  setExtentSizeHint?(bytes: number): void;
  /** Turns copy-on-write off for a file that is still empty (btrfs). */
  setNoCopyOnWrite?(): void;

  /**
   * Moves the file to a context, `undefined` being the main one. Requests from now on run there; those under way end
   * where they began. Absent: the host has no contexts.
   */
  setContext?(context: HostContext | undefined): void;

  close(): Promise<void>;
}

/** Files by name. Methods throw BlockError with the codes of the system. */
export interface HostFiles {
  open(path: string, mode: HostFileMode): Promise<HostFile>;
  /** Follows symbolic links. */
  stat(path: string, context?: HostContext): Promise<HostFileInfo>;
  /** The name with all symbolic links resolved; the last component need not exist. */
  resolve(path: string): Promise<string>;
  remove(path: string): Promise<void>;
  /** Replaces `to` in one step, keeping nothing of it but, if it exists, its permission bits. */
  rename(from: string, to: string): Promise<void>;
  /** Where temporary files go, without a slash at its end. Absent: the host has none. */
  readonly temporaryFolder?: string;
  /** Names in a folder. */
  list(path: string): Promise<string[]>;
}

/** Time, which a simulated host may tell as it likes. */
export interface HostClock {
  /** Milliseconds of a clock that never goes back. */
  now(): number;
  /** Milliseconds since 1970. */
  wall(): number;
  /** Resolves after `milliseconds`, by `now` no earlier; rejects with the signal's reason if it is aborted first. */
  sleep(milliseconds: number, signal?: AbortSignal): Promise<void>;
  /**
   * The same for what is done by the way: it keeps no program running that has nothing else to do, and simulated time does
   * not go on for it. Absent: nothing is done by the way.
   */
  rest?(milliseconds: number, signal?: AbortSignal): Promise<void>;
}

/** zstd in WebAssembly, as far as it is used of the package @hpcc-js/wasm-zstd. */
export interface ZstdCodec {
  reset(): void;
  /** At most `length` bytes of what a frame holds. Throws for what is none. */
  decompressChunk(frame: Uint8Array, length: number): Uint8Array;
  /** One frame with all of `source`. */
  compress(source: Uint8Array): Uint8Array;
}
/** Zstandard in WebAssembly, as the package @hpcc-js/wasm-zstd has it. */
export interface ZstdModule {
  readonly Zstd: { load(): Promise<ZstdCodec> };
}

/** Coding by zstd off the event loop. All resolve with the bytes of `target` that are filled. */
export interface ZstdCodecs {
  /** One frame; -1: it does not fit. */
  compress(source: Uint8Array, target: Uint8Array): Promise<number>;
  /**
   * Each of some whole frames into its own target: the bytes that it fills; -1: it holds more, or is bad, which some codecs tell
   * by fewer bytes than were stored.
   */
  decompress(frames: readonly Uint8Array[], targets: readonly Uint8Array[]): Promise<readonly number[]>;
}

/** All that the engine asks of the world: files, clock, chance, connections, warnings and events. */
export interface Host {
  readonly files: HostFiles;
  readonly clock: HostClock;
  /** A context with threads of its own, started as they are needed. Absent: the host has none, and what waits for none. */
  createContext?(name: string, options?: HostContextOptions): HostContext;
  /**
   * Connects to a server; without delay of small packets, and kept alive, where it is TCP. Throws BlockError, with the
   * system's text of what is wrong. Absent: the host has no network.
   */
  connect?(address: ServerAddress, options?: ConnectOptions): Promise<ByteStream>;
  /** The TCP port of a service, such as `nbd`; undefined for one that is not known. Absent: the host knows none. */
  servicePort?(name: string): Promise<number | undefined>;
  /** Loads credentials for {@link connect}'s streams. Throws BlockError. Absent: the host has no TLS. */
  clientTls?(request: ClientTlsRequest): Promise<ClientTls>;
  /** Threads for large work on files. Absent: the host has none. */
  bulkLanes?(): BulkLanes | undefined;
  /**
   * Fills each target from its own raw deflate stream, ignoring whatever follows; false: the stream is bad or too short. Absent:
   * bytes/inflate.ts does it on the event loop.
   */
  inflateRaw?(sources: readonly Uint8Array[], targets: readonly Uint8Array[]): Promise<readonly boolean[]>;
  /**
   * Makes a raw deflate stream with a window of 4096 bytes; resolves with the bytes of `target` that it takes, or -1: it does
   * not fit. Absent: bytes/deflate.ts does it on the event loop.
   */
  deflateRaw?(source: Uint8Array, target: Uint8Array): Promise<number>;
  /** zstd in other threads. Undefined: WebAssembly does it on the event loop. */
  zstd?(): ZstdCodecs | undefined;
  /** The package with the codec for zstd. Absent: an import finds it. */
  loadZstd?(): ZstdModule;
  /** Ciphers and hashes. Absent: those in JavaScript, several times slower. */
  crypto?(): HostCrypto;
  /** Random bytes; from a seed in simulations. */
  random(target: Uint8Array): void;
  /** A warning for the user: whole lines, without a program's prefix. */
  warn(message: string): void;
  /** Something only shown on request: a capability that is missing, a fallback taken. */
  notice(message: string): void;
  /** Aborted when someone wants the program to end: servers that do not answer are then not waited for much longer. */
  readonly interrupted?: AbortSignal;
  /** Ends the program at once as failed, with a message to its user. Absent: it cannot be ended from here. */
  exit?(message: string): never;
  /** Whether someone listens to `channel`, so that an unwatched event costs nothing. */
  watched(channel: string): boolean;
  /** Publishes an event, on Node through `diagnostics_channel`. */
  publish(channel: string, message: object): void;
}
