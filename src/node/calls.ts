/**
 * The blocking system calls of files. Who makes them is a context's matter: the main one uses Node's thread pool, and in
 * programs that wait for them anyway the event loop makes the quick ones itself.
 */
import fs from 'node:fs';
import { asBlockError, codeOf } from '../core/errors.ts';

/** What is used of a stat(2) result. */
export interface FileStats {
  readonly mode: bigint;
  readonly size: bigint;
  readonly blocks: bigint;
  readonly dev: bigint;
  readonly ino: bigint;
  readonly rdev: bigint;
}

/** One system call each, repeated only when a signal interrupts it. Errors are BlockErrors. */
export interface BlockingCalls {
  /** The bytes read; 0 at the end. `position` null: where the pipe is. */
  read(fd: number, target: Uint8Array, position: number | null): Promise<number>;
  write(fd: number, source: Uint8Array, position: number | null): Promise<number>;
  datasync(fd: number): Promise<void>;
  truncate(fd: number, length: number): Promise<void>;
  close(fd: number): Promise<void>;
  open(name: string, flags: number, createMode: number): Promise<number>;
  /** Of an open file, or of a name with symbolic links followed. */
  stat(file: number | string): Promise<FileStats>;
  /** `f_type` of statfs(2). */
  fileSystemType(name: string): Promise<number>;
}

/** With those that all contexts leave to the main one. */
export interface MainCalls extends BlockingCalls {
  /** Without symbolic links; all of it must be there. */
  realPath(name: string): Promise<string>;
  /** What a symbolic link holds; EINVAL: it is none. */
  readLink(name: string): Promise<string>;
  rename(from: string, to: string): Promise<void>;
}

type Callback<T> = (error: NodeJS.ErrnoException | null, value: T) => void;

function promised<T>(start: (done: Callback<T>) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    const attempt = () =>
      start((error, value) => {
        if (!error) resolve(value);
        else if (error.code === 'EINTR') attempt();
        else reject(asBlockError(error));
      });
    attempt();
  });
}

/** A call with only an error to report. */
type Finished = (error: NodeJS.ErrnoException | null) => void;
const finished = (start: (done: Finished) => void) => promised<void>((done) => start((error) => done(error)));

/** Node's thread pool, shared by everything in the process: by default four threads. */
export const THREAD_POOL: MainCalls = {
  read: (fd, target, position) => promised((done) => fs.read(fd, target, 0, target.length, position, done)),
  write: (fd, source, position) => promised((done) => fs.write(fd, source, 0, source.length, position, done)),
  datasync: (fd) => finished((done) => fs.fdatasync(fd, done)),
  truncate: (fd, length) => finished((done) => fs.ftruncate(fd, length, done)),
  close: (fd) => finished((done) => fs.close(fd, done)),
  open: (name, flags, createMode) => promised((done) => fs.open(name, flags, createMode, done)),
  stat: (file) =>
    promised<FileStats>((done) =>
      typeof file === 'string' ? fs.stat(file, { bigint: true }, done) : fs.fstat(file, { bigint: true }, done),
    ),
  fileSystemType: async (name) => (await promised<fs.StatsFs>((done) => fs.statfs(name, done))).type,
  realPath: (name) => promised((done) => fs.realpath.native(name, done)),
  readLink: (name) => promised((done) => fs.readlink(name, done)),
  rename: (from, to) => finished((done) => fs.rename(from, to, done)),
};

/** Missing on some systems. */
const O_NONBLOCK: number = fs.constants.O_NONBLOCK ?? 0;

async function now<T>(call: () => T): Promise<T> {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (codeOf(error) !== 'EINTR') throw asBlockError(error);
    }
  }
}

/**
 * The thread of the event loop, for regular files on quick storage and names known to lead there ({@link QuickNames}): each
 * takes microseconds, and a trip to the pool tens to hundreds. What moves data, waits for a disk or gives much storage back stays
 * in the pool.
 */
export const AT_ONCE: MainCalls = {
  ...THREAD_POOL,
  truncate: async (fd, length) =>
    (await AT_ONCE.stat(fd)).size > length ? THREAD_POOL.truncate(fd, length) : now(() => fs.ftruncateSync(fd, length)),
  // With its last name gone, the file goes too.
  close: async (fd) =>
    (await now(() => fs.fstatSync(fd))).nlink === 0 ? THREAD_POOL.close(fd) : now(() => fs.closeSync(fd)),
  async open(name, flags, createMode) {
    if ((flags & fs.constants.O_TRUNC) !== 0) return THREAD_POOL.open(name, flags, createMode);
    try {
      // Regular files do not mind. Should there be a pipe by now, or someone's lease on the file, this does not wait.
      return await now(() => fs.openSync(name, flags | O_NONBLOCK, createMode));
    } catch (error) {
      if (codeOf(error) !== 'EAGAIN') throw error;
    }
    return THREAD_POOL.open(name, flags, createMode);
  },
  stat: (file) =>
    now(() => (typeof file === 'string' ? fs.statSync(file, { bigint: true }) : fs.fstatSync(file, { bigint: true }))),
  fileSystemType: (name) => now(() => fs.statfsSync(name).type),
  realPath: (name) => now(() => fs.realpathSync.native(name)),
  readLink: (name) => now(() => fs.readlinkSync(name)),
  rename: (from, to) => now(() => fs.renameSync(from, to)),
};
