/** Advisory locks that belong to an open file, not to a process ("open file description locks"). */
import { fstatSync } from 'node:fs';
import { constants } from 'node:os';
import type { LockHolder } from '../core/host.ts';
import { NOT_SUPPORTED, systemError } from './errno.ts';
import { findLockHolder, lockFileKey } from './lock-holder.ts';
import type { LockKind, Syscalls } from './syscalls.ts';

const { EAGAIN, EACCES, EINVAL, ENOLCK, EINTR } = constants.errno;

export class FileLocks {
  readonly #fd: number;
  readonly #syscalls: Syscalls;
  readonly #now: () => number;

  constructor(fd: number, syscalls: Syscalls, now: () => number) {
    this.#fd = fd;
    this.#syscalls = syscalls;
    this.#now = now;
  }

  /** See HostFile.lock. */
  lock(kind: LockKind, offset: number, length: number): boolean {
    const result = retried(() => this.#syscalls.setLock(this.#fd, kind, offset, length));
    if (result === -EAGAIN || result === -EACCES) return false;
    if (result < 0) throw lockError(-result);
    return true;
  }

  /** See HostFile.isLocked. */
  isLocked(kind: LockKind, offset: number, length: number): boolean {
    const result = retried(() => this.#syscalls.testLock(this.#fd, kind, offset, length));
    if (result < 0) throw lockError(-result);
    return result === 1;
  }

  /** See HostFile.lockHolder. */
  holder(offset: number, length: number): LockHolder | undefined {
    const { dev, ino } = fstatSync(this.#fd, { bigint: true });
    return findLockHolder({ fd: this.#fd, file: lockFileKey(dev, ino), offset, length }, this.#now);
  }
}

function retried(call: () => number): number {
  let result = call();
  while (result === -EINTR) result = call();
  return result;
}

/** A file system or kernel without such locks answers EINVAL or ENOLCK. */
function lockError(number: number): Error {
  return systemError(number === EINVAL || number === ENOLCK ? NOT_SUPPORTED : number);
}
