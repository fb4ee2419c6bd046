/**
 * System calls that Node lacks. All answer with the call's result, or with the negated error number;
 * -EOPNOTSUPP where the call, or the means to make it, is missing.
 */
import { constants } from 'node:os';
import type { NodeContext } from './context.ts';
import { NOT_SUPPORTED } from './errno.ts';
import { type Koffi, koffiFiles, loadKoffi, type NativeFunction } from './koffi.ts';

/** Machines whose off_t has 64 bits and whose ioctl numbers are those of the generic kernel headers. */
const MACHINES = ['x64', 'arm64', 'riscv64', 'loong64'];

/** One line each: missing ones are found out when first needed. */
const PROTOTYPES = {
  preadv2: 'int64_t preadv2(int fd, void *iov, int count, int64_t offset, int flags)',
  lseek: 'int64_t lseek(int fd, int64_t offset, int whence)',
  fallocate: 'int fallocate(int fd, int mode, int64_t offset, int64_t length)',
  copy_file_range:
    'int64_t copy_file_range(int from, int64_t *from_offset, int to, int64_t *to_offset, size_t length, uint flags)',
  // These two have no fixed parameters in C; on MACHINES a pointer is passed alike either way.
  fcntl: 'int fcntl(int fd, int command, void *argument)',
  ioctl: 'int ioctl(int fd, ulong request, void *argument)',
  // Nor has this one, by which calls are made that the C library does not know.
  syscall: 'int64_t syscall(int64_t number, int64_t fd, void *range, void *result, int64_t flags)',
  statx: 'int statx(int folder, const char *path, int flags, uint mask, uintptr_t result)',
  // In threads of contexts, which are told where the memory is.
  read: 'int64_t read(int fd, uintptr_t target, size_t length)',
  pread: 'int64_t pread(int fd, uintptr_t target, size_t length, int64_t offset)',
  write: 'int64_t write(int fd, uintptr_t source, size_t length)',
  pwrite: 'int64_t pwrite(int fd, uintptr_t source, size_t length, int64_t offset)',
  getpagesize: 'int getpagesize()',
  _exit: 'void _exit(int status)',
} as const;
type CallName = keyof typeof PROTOTYPES;

const RWF_NOWAIT = 8;
/** The number is the same on all machines. Linux has it since 6.5. */
const CACHESTAT = 451;
/** `whence` of lseek: the next offset, at or after the one given, that is stored, or in a hole; -ENXIO: none. */
const SEEK = { end: 2, data: 3, hole: 4 } as const;
export type SeekTarget = keyof typeof SEEK;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const BLKDISCARD = 0x1277;
const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_IOC_FSGETXATTR = 0x801c581f;
const FS_IOC_FSSETXATTR = 0x401c5820;
const FS_NOCOW_FL = 0x00800000;
const FS_XFLAG_EXTSIZE = 0x00000800;
const AT_EMPTY_PATH = 0x1000;
const STATX_DIOALIGN = 0x2000;

/** Modes of fallocate. */
export const Fallocate = { allocate: 0, keepSize: 1, punchHole: 1 | 2, zeroRange: 16 } as const;
/** Shorter writes gain nothing from storage reserved before, bytes. */
const SHORTEST_RESERVED = 128 * 1024;

/** `l_type` of struct flock. */
const LOCK_TYPE = { shared: 0, exclusive: 1, none: 2 } as const;
export type LockKind = keyof typeof LOCK_TYPE;

export interface CopyPlace {
  readonly fd: number;
  readonly offset: number;
}

export class Syscalls {
  readonly #load: () => Koffi;
  readonly #notice: (message: string) => void;
  #koffi: Koffi | null | undefined;
  #library: ReturnType<Koffi['load']> | undefined;
  /** Bound on first use; null: missing. */
  readonly #bound = new Map<CallName, NativeFunction | null>();
  #preadv2: NativeFunction | null | undefined;
  /** One struct iovec for all synchronous calls: base, length. */
  readonly #iovec = new BigUint64Array(2);
  #pageSize: number | undefined;
  /** struct cachestat_range: offset, length; struct cachestat: pages in the cache, dirty ones, and more. */
  readonly #cacheRange = new BigUint64Array(2);
  readonly #cacheCounts = new BigUint64Array(5);

  constructor(notice: (message: string) => void, load: () => Koffi = loadKoffi) {
    this.#notice = notice;
    this.#load = load;
  }

  /** Loads what the calls need, which the first of them does otherwise. */
  prepare(): void {
    this.#loaded();
  }

  /** Reads what is in the host's cache, without waiting for a disk. */
  readNow(fd: number, target: Uint8Array, offset: number): number {
    this.#preadv2 ??= this.#bind('preadv2');
    const preadv2 = this.#preadv2;
    const koffi = this.#koffi;
    if (preadv2 === null || !koffi) return -NOT_SUPPORTED;
    this.#iovec[0] = BigInt(koffi.address(target));
    this.#iovec[1] = BigInt(target.length);
    const result = preadv2(fd, this.#iovec, 1, offset, RWF_NOWAIT) as number;
    return result < 0 ? -koffi.errno() : result;
  }

  /** Pages of a range of a file that are not in the host's cache. Those on their way into it count as there. */
  uncachedPages(fd: number, offset: number, length: number): number {
    if (length === 0) return 0;
    this.#pageSize ??= this.#call('getpagesize');
    const pages = Math.floor((offset + length - 1) / this.#pageSize) - Math.floor(offset / this.#pageSize) + 1;
    this.#cacheRange[0] = BigInt(offset);
    this.#cacheRange[1] = BigInt(length);
    const result = this.#call('syscall', CACHESTAT, fd, this.#cacheRange, this.#cacheCounts, 0);
    return result < 0 ? result : pages - Number(this.#cacheCounts[0]);
  }

  /** Where the memory of `bytes` begins; undefined when that cannot be found out. */
  address(bytes: NodeJS.ArrayBufferView): number | undefined {
    const koffi = this.#loaded();
    return koffi ? Number(koffi.address(bytes)) : undefined;
  }

  /** The same modulo `modulus`, a power of two. */
  addressModulo(bytes: Uint8Array, modulus: number): number | undefined {
    const address = this.address(bytes);
    return address === undefined ? undefined : address % modulus;
  }

  /** What another thread needs to bind the call; undefined: missing. */
  prototype(name: CallName): string | undefined {
    return this.#bind(name) === null ? undefined : PROTOTYPES[name];
  }

  /** Files by which another thread loads the library; none where there is none. */
  koffiFiles(): string[] {
    return this.#loaded() ? koffiFiles() : [];
  }

  /** Ends the process at once; returns where the call is missing. */
  exitNow(status: number): void {
    this.#bind('_exit')?.(status);
  }

  seek(fd: number, to: SeekTarget, offset: number): number {
    return this.#call('lseek', fd, offset, SEEK[to]);
  }

  /** In the threads of `context`, or in the pool; as all calls are that take one. */
  seekIn(context: NodeContext | undefined, fd: number, to: SeekTarget, offset: number): Promise<number> {
    return this.#callIn(context, 'lseek', fd, offset, SEEK[to]);
  }

  fallocate(
    context: NodeContext | undefined,
    fd: number,
    mode: number,
    offset: number,
    length: number,
  ): Promise<number> {
    return this.#callIn(context, 'fallocate', fd, mode, offset, length);
  }

  /**
   * Reserves what a large write is about to fill, at once; the file's size stays. What goes wrong is for the write to tell.
   * ext4 otherwise keeps a book of every 4 KiB of new data until it finds them a place.
   */
  reserve(fd: number, offset: number, length: number): void {
    if (length >= SHORTEST_RESERVED) this.#call('fallocate', fd, Fallocate.keepSize, offset, length);
  }

  copyFileRange(context: NodeContext | undefined, from: CopyPlace, to: CopyPlace, length: number): Promise<number> {
    const offsets = [BigInt64Array.of(BigInt(from.offset)), BigInt64Array.of(BigInt(to.offset))] as const;
    return this.#callIn(context, 'copy_file_range', from.fd, offsets[0], to.fd, offsets[1], length, 0);
  }

  /** Takes or drops an open-file-description lock; -EAGAIN: another holder is in the way. */
  setLock(fd: number, kind: LockKind, offset: number, length: number): number {
    return this.#call('fcntl', fd, F_OFD_SETLK, flock(kind, offset, length));
  }

  /** 1 when a lock of `kind` would meet another holder's, 0 when not. */
  testLock(fd: number, kind: LockKind, offset: number, length: number): number {
    const lock = flock(kind, offset, length);
    const result = this.#call('fcntl', fd, F_OFD_GETLK, lock);
    if (result < 0) return result;
    return new Int16Array(lock.buffer)[0] === LOCK_TYPE.none ? 0 : 1;
  }

  /** Tells a block device that the range is not needed. */
  discardDevice(context: NodeContext | undefined, fd: number, offset: number, length: number): Promise<number> {
    const range = BigUint64Array.of(BigInt(offset), BigInt(length));
    return this.#callIn(context, 'ioctl', fd, BLKDISCARD, range);
  }

  /** Extent size hint in bytes, 0 for none. */
  extentSizeHint(fd: number): number {
    const attributes = new Uint32Array(7);
    const result = this.#call('ioctl', fd, FS_IOC_FSGETXATTR, attributes);
    const flags = attributes[0] ?? 0;
    return result < 0 ? result : (flags & FS_XFLAG_EXTSIZE) !== 0 ? (attributes[1] ?? 0) : 0;
  }

  setExtentSizeHint(fd: number, bytes: number): number {
    const attributes = new Uint32Array(7);
    const result = this.#call('ioctl', fd, FS_IOC_FSGETXATTR, attributes);
    if (result < 0) return result;
    attributes[0] = (attributes[0] ?? 0) | FS_XFLAG_EXTSIZE;
    attributes[1] = bytes;
    return this.#call('ioctl', fd, FS_IOC_FSSETXATTR, attributes);
  }

  /** Turns copy-on-write off for an empty file. */
  setNoCopyOnWrite(fd: number): number {
    // The kernel reads and writes an int, whatever the number of the request says.
    const flags = new Uint32Array(2);
    const result = this.#call('ioctl', fd, FS_IOC_GETFLAGS, flags);
    if (result < 0) return result;
    flags[0] = (flags[0] ?? 0) | FS_NOCOW_FL;
    return this.#call('ioctl', fd, FS_IOC_SETFLAGS, flags);
  }

  /** What O_DIRECT asks of memory and of offsets, in bytes; undefined when the kernel does not tell. */
  async directAlignment(
    context: NodeContext | undefined,
    fd: number,
  ): Promise<{ readonly memory: number; readonly offset: number } | undefined> {
    const result = new Uint32Array(64);
    const address = this.address(result);
    if (address === undefined) return undefined;
    if ((await this.#callIn(context, 'statx', fd, '', AT_EMPTY_PATH, STATX_DIOALIGN, address)) < 0) return undefined;
    const [memory = 0, offset = 0] = [result[0x98 / 4], result[0x9c / 4]];
    return ((result[0] ?? 0) & STATX_DIOALIGN) !== 0 && offset > 0 ? { memory, offset } : undefined;
  }

  #call(name: CallName, ...parameters: unknown[]): number {
    const call = this.#bind(name);
    if (call === null) return -NOT_SUPPORTED;
    const result = Number(call(...parameters));
    return result < 0 ? -(this.#koffi?.errno() ?? NOT_SUPPORTED) : result;
  }

  /** Repeated when a signal interrupts it. */
  async #callIn(context: NodeContext | undefined, name: CallName, ...parameters: unknown[]): Promise<number> {
    const call = this.#bind(name);
    if (call === null) return -NOT_SUPPORTED;
    if (context !== undefined) return (await context.run({ prototype: PROTOTYPES[name], parameters })) as number;
    for (;;) {
      const result = await new Promise<number>((resolve, reject) => {
        call.async(...parameters, (error: Error | null, value: number | bigint) => {
          if (error) reject(error);
          else resolve(value < 0 ? -(this.#koffi?.errno() ?? NOT_SUPPORTED) : Number(value));
        });
      });
      if (result !== -constants.errno.EINTR) return result;
    }
  }

  #bind(name: CallName): NativeFunction | null {
    const known = this.#bound.get(name);
    if (known !== undefined) return known;
    let bound: NativeFunction | null = null;
    const koffi = this.#loaded();
    if (koffi) {
      try {
        this.#library ??= koffi.load(null);
        bound = this.#library.func(PROTOTYPES[name]);
      } catch {
        this.#notice(`The system call ${name} is missing; doing without it`);
      }
    }
    this.#bound.set(name, bound);
    return bound;
  }

  #loaded(): Koffi | null {
    if (this.#koffi !== undefined) return this.#koffi;
    this.#koffi = null;
    if (process.platform !== 'linux' || !MACHINES.includes(process.arch)) {
      this.#notice(`No direct system calls on ${process.platform} ${process.arch}; doing without them`);
      return null;
    }
    try {
      this.#koffi = this.#load();
    } catch (error) {
      this.#notice(`Cannot load koffi for direct system calls; doing without them: ${(error as Error).message}`);
    }
    return this.#koffi;
  }
}

/** A struct flock with 64-bit offsets. */
function flock(kind: LockKind, offset: number, length: number): Int16Array {
  const fields = new BigInt64Array(4);
  const shorts = new Int16Array(fields.buffer);
  shorts[0] = LOCK_TYPE[kind];
  fields[1] = BigInt(offset);
  fields[2] = BigInt(length);
  return shorts;
}
