/** The blocking system calls of files. Who makes them is a context's matter: the main one uses Node's thread pool. */
import fs from 'node:fs';
import { asBlockError } from '../core/errors.ts';

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
export const THREAD_POOL: BlockingCalls = {
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
};
