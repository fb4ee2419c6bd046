/**
 * Permissions as locks on an image file, seen by other processes (BL-PERM-7). The scheme is QEMU's, so that both see each
 * other: a shared lock on byte 100+bit for each permission in use, on byte 200+bit for each one not shared.
 */
import type { PendingChange } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import type { HostFile } from '../core/host.ts';
import { PERMISSION_NAMES, type Permissions } from '../core/permissions.ts';

const IN_USE = 100;
const UNSHARED = 200;
const EVERYTHING: Permissions = { need: 0, share: 15 };

export class FileLocks {
  readonly #file: HostFile;
  readonly #filename: string;
  #held = EVERYTHING;

  constructor(file: HostFile, filename: string) {
    this.#file = file;
    this.#filename = filename;
  }

  /** Takes what is new beside what is held, and looks for others in the way; the change is then committed or taken back. */
  prepare(next: Permissions): PendingChange {
    const before = this.#held;
    const both = { need: before.need | next.need, share: before.share & next.share };
    try {
      this.#apply(both);
      this.#lookForOthers(next);
    } catch (error) {
      this.#apply(before);
      throw error;
    }
    return {
      commit: () => {
        this.#apply(next);
        this.#held = next;
      },
      abort: () => this.#apply(before),
    };
  }

  #apply({ need, share }: Permissions): void {
    PERMISSION_NAMES.forEach(([bit], index) => {
      const taken = this.#file.lock((need & bit) !== 0 ? 'shared' : 'none', IN_USE + index, 1);
      const kept = this.#file.lock((share & bit) === 0 ? 'shared' : 'none', UNSHARED + index, 1);
      if (!taken || !kept) throw this.#refusal('Failed to lock byte', (taken ? UNSHARED : IN_USE) + index);
    });
  }

  #lookForOthers({ need, share }: Permissions): void {
    PERMISSION_NAMES.forEach(([bit, name], index) => {
      if ((need & bit) !== 0 && this.#file.isLocked('exclusive', UNSHARED + index, 1)) {
        throw this.#refusal(`Failed to get "${name}" lock`, UNSHARED + index);
      }
      if ((share & bit) === 0 && this.#file.isLocked('exclusive', IN_USE + index, 1)) {
        throw this.#refusal(`Failed to get shared "${name}" lock`, IN_USE + index);
      }
    });
  }

  #refusal(message: string, byte: number): BlockError {
    const holder = this.#file.lockHolder(byte, 1);
    return new BlockError('EAGAIN', message, {
      hint: `Is another process using the image [${this.#filename}]?`,
      holder: holder && `It is used by ${holder.command} (process ${holder.pid}).`,
    });
  }
}
