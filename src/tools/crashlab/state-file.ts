/** A crash state as a file, for programs that check files: shares the base's storage where the file system can, else sparse. */
import { constants, copyFileSync, statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { isZero } from '../../bytes/zero.ts';
import type { Disk } from '../../core/disk.ts';

interface Range {
  readonly offset: number;
  readonly length: number;
}

/** Data are copied in pieces of this many bytes. */
const PIECE = 1 << 20;

/** Makes such files of states over one base. */
export class StateFiles {
  /** The base's file, if its bytes are the disk's and it can be cloned. */
  #cloned: string | undefined;

  constructor(base: Disk) {
    this.#cloned = base.format === 'raw' && isFileOf(base.filename, base.length) ? base.filename : undefined;
  }

  /** Writes the state to a new file. `changes`: where it is not the base. */
  async write(disk: Disk, changes: readonly Range[], path: string): Promise<void> {
    const isClone = this.#clone(path);
    const file = await open(path, isClone ? 'r+' : 'w+');
    try {
      await file.truncate(disk.length);
      if (isClone) for (const { offset, length } of changes) await copyPlain(disk, file, offset, length);
      else await copySparse(disk, file);
    } finally {
      await file.close();
    }
  }

  #clone(path: string): boolean {
    if (this.#cloned === undefined) return false;
    try {
      copyFileSync(this.#cloned, path, constants.COPYFILE_FICLONE_FORCE);
      return true;
    } catch {
      // This file system has no clones; it will have none for the next state either.
      this.#cloned = undefined;
      return false;
    }
  }
}

function isFileOf(filename: string, length: number): boolean {
  try {
    const found = statSync(filename);
    return found.isFile() && found.size === length;
  } catch {
    return false;
  }
}

async function copyPlain(disk: Disk, file: FileHandle, offset: number, length: number): Promise<void> {
  for (let done = 0; done < length; done += PIECE) {
    const bytes = await disk.read(offset + done, Math.min(PIECE, length - done));
    await file.write(bytes, 0, bytes.length, offset + done);
  }
}

async function copySparse(disk: Disk, file: FileHandle): Promise<void> {
  for (let at = 0; at < disk.length; ) {
    const { length, zero } = await disk.status(at, disk.length - at);
    for (let done = 0; !zero && done < length; done += PIECE) {
      const bytes = await disk.read(at + done, Math.min(PIECE, length - done));
      if (!isZero(bytes)) await file.write(bytes, 0, bytes.length, at + done);
    }
    at += length;
  }
}
