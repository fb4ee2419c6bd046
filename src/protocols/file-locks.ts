/**
 * Permissions as locks on an image file, seen by other processes (BL-PERM-7). The scheme is QEMU's, so that both see each
 * other: a shared lock on byte 100+bit for each permission in use, on byte 200+bit for each one not shared.
 */
import type { PendingChange } from '../core/driver.ts';
import { BlockError, codeOf } from '../core/errors.ts';
import type { Host, HostFile } from '../core/host.ts';
import { ALL_PERMISSIONS, NO_PERMISSIONS, PERMISSION_NAMES, type Permissions } from '../core/permissions.ts';

const IN_USE = 100;
const UNSHARED = 200;
const NOTHING: Permissions = { need: NO_PERMISSIONS, share: ALL_PERMISSIONS };
const OWN = 'It is used by this program itself.';
const NO_CHANGE: PendingChange = { commit() {}, abort() {} };

/** `on`: fail where the host has no such locks; `auto`: do without; `off`: take none. */
export type Locking = 'on' | 'off' | 'auto';

export class FileLocks {
  #file: HostFile;
  readonly #filename: string;
  readonly #host: Host;
  #locking: Locking;
  #held = NOTHING;

  constructor(file: HostFile, filename: string, host: Host, locking: Locking) {
    this.#file = file;
    this.#filename = filename;
    this.#host = host;
    this.#locking = locking;
  }

  /**
   * Takes what is new beside what is held, and looks for others in the way; the change is then committed or taken back.
   * Throws BlockError EAGAIN when another holder is in the way, and holds what it held before.
   */
  prepare(next: Permissions): PendingChange {
    if (this.#locking === 'off') return NO_CHANGE;
    const before = this.#held;
    try {
      this.#take({ need: before.need | next.need, share: before.share & next.share });
      this.#lookForOthers(next);
    } catch (error) {
      this.#drop(before);
      if (codeOf(error) !== 'ENOTSUP') throw error;
      this.#doWithout(error);
      return NO_CHANGE;
    }
    return { commit: () => this.#drop(next), abort: () => this.#drop(before) };
  }

  /**
   * The locks belong to another handle of the same file from now on; those of the old one go when it is closed. All are
   * shared locks, so that both can hold them; one that is refused all the same is noted.
   */
  moveTo(file: HostFile): void {
    const { need, share } = this.#held;
    this.#file = file;
    if (this.#locking === 'off') return;
    this.#forEach(need, (byte) => this.#moveByte(IN_USE + byte));
    this.#forEach(ALL_PERMISSIONS & ~share, (byte) => this.#moveByte(UNSHARED + byte));
  }

  #moveByte(byte: number): void {
    const failure = () => this.#host.notice(`'${this.#filename}': lost the lock on byte ${byte} on reopening`);
    try {
      if (!this.#file.lock('shared', byte, 1)) failure();
    } catch {
      failure();
    }
  }

  /** Adds what `wanted` has and is not held. */
  #take(wanted: Permissions): void {
    const held = this.#held;
    this.#held = wanted;
    this.#forEach(wanted.need & ~held.need, (byte) => this.#takeByte(IN_USE + byte));
    this.#forEach(held.share & ~wanted.share, (byte) => this.#takeByte(UNSHARED + byte));
  }

  #takeByte(byte: number): void {
    if (!this.#file.lock('shared', byte, 1)) throw this.#refusal(`Failed to lock byte ${byte}`, byte);
  }

  /** Gives up what is held and `kept` has not. */
  #drop(kept: Permissions): void {
    const held = this.#held;
    this.#held = kept;
    this.#forEach(held.need & ~kept.need, (byte) => this.#dropByte(IN_USE + byte));
    this.#forEach(kept.share & ~held.share, (byte) => this.#dropByte(UNSHARED + byte));
  }

  /** A lock that cannot be dropped is dropped when the file is closed. */
  #dropByte(byte: number): void {
    try {
      this.#file.lock('none', byte, 1);
    } catch (error) {
      if (codeOf(error) === 'ENOTSUP') return;
      this.#host.notice(`'${this.#filename}': cannot drop the lock on byte ${byte}: ${(error as Error).message}`);
    }
  }

  #lookForOthers({ need, share }: Permissions): void {
    this.#forEach(need, (byte, name) => this.#refuseIfLocked(UNSHARED + byte, `Failed to get "${name}" lock`));
    this.#forEach(ALL_PERMISSIONS & ~share, (byte, name) =>
      this.#refuseIfLocked(IN_USE + byte, `Failed to get shared "${name}" lock`),
    );
  }

  #refuseIfLocked(byte: number, message: string): void {
    if (this.#file.isLocked('exclusive', byte, 1)) throw this.#refusal(message, byte);
  }

  #refusal(message: string, byte: number): BlockError {
    const holder = this.#file.lockHolder(byte, 1);
    return new BlockError('EAGAIN', message, {
      hint: `Is another process using the image [${this.#filename}]?`,
      holder: holder && (holder.own ? OWN : `It is used by ${holder.command} (process ${holder.pid}).`),
    });
  }

  #doWithout(cause: unknown): void {
    if (this.#locking === 'on') {
      throw new BlockError('ENOTSUP', `Cannot lock '${this.#filename}': no locks of open files there`, { cause });
    }
    this.#host.notice(`'${this.#filename}': no locks of open files there; other processes are not kept away`);
    this.#locking = 'off';
  }

  #forEach(set: number, visit: (byte: number, name: string) => void): void {
    PERMISSION_NAMES.forEach(([bit, name], index) => {
      if ((set & bit) !== 0) visit(index, name);
    });
  }
}
