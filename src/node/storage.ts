/** What kind of storage is under a file, as far as it decides whether a call may have to wait. */

import fs, { constants } from 'node:fs';
import type { HostFileKind } from '../core/host.ts';
import type { BlockingCalls } from './calls.ts';

/**
 * `memory`: nothing waits for a disk. `local`: writes go to the page cache, which is seldom slow.
 * `other`: networks, FUSE, and what we do not know.
 */
export type StorageClass = 'memory' | 'local' | 'other';

export interface Storage {
  readonly class: StorageClass;
  /** Calls that move no data return soon. */
  readonly quick: boolean;
  /** Files may have extent size hints. */
  readonly extentSizeHints: boolean;
  /** Large writes to new storage take half the time when it is reserved right before. */
  readonly reserve: boolean;
}

const XFS = 0x58465342;
const EXT4 = 0xef53;
const OVERLAY = 0x794c7630;

/** `f_type` of statfs(2). */
const STORAGE_CLASSES: ReadonlyMap<number, StorageClass> = new Map([
  [0x01021994, 'memory'], // tmpfs
  [0x858458f6, 'memory'], // ramfs
  [EXT4, 'local'], // ext2 and ext3 too
  [XFS, 'local'],
  [0x9123683e, 'local'], // btrfs
  [0xf2f52010, 'local'], // f2fs
  [OVERLAY, 'local'],
]);

export const UNKNOWN_STORAGE: Storage = { class: 'other', quick: false, extentSizeHints: false, reserve: false };

/** What is known of the file system that holds `path`. */
export async function storageOf(path: string, calls: BlockingCalls): Promise<Storage> {
  try {
    const type = await calls.fileSystemType(path);
    const known = STORAGE_CLASSES.get(type) ?? 'other';
    return {
      class: known,
      // An overlay may copy a whole file when it is opened, from a network too.
      quick: known !== 'other' && type !== OVERLAY,
      extentSizeHints: type === XFS,
      reserve: type === EXT4,
    };
  } catch {
    return UNKNOWN_STORAGE;
  }
}

/** By the type bits of `st_mode`; some have no constant on some systems. */
const KINDS: ReadonlyMap<number | undefined, HostFileKind> = new Map([
  [constants.S_IFREG, 'regular'],
  [constants.S_IFBLK, 'block'],
  [constants.S_IFCHR, 'character'],
  [constants.S_IFIFO, 'pipe'],
  [constants.S_IFDIR, 'directory'],
]);

export function kindOf(mode: bigint): HostFileKind {
  return KINDS.get(Number(mode) & constants.S_IFMT) ?? 'other';
}

/** The folder of a block device in sysfs. */
function deviceFolder(rdev: bigint): string {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n);
  return `/sys/dev/block/${major}:${minor}`;
}

async function numberIn(path: string): Promise<number | undefined> {
  try {
    const number = Number.parseInt(await fs.promises.readFile(path, 'latin1'), 10);
    return Number.isSafeInteger(number) ? number : undefined;
  } catch {
    return undefined;
  }
}

/** Capacity of a block device in bytes; undefined when the system does not tell. */
export async function deviceCapacity(rdev: bigint): Promise<number | undefined> {
  const sectors = await numberIn(`${deviceFolder(rdev)}/size`);
  return sectors === undefined ? undefined : sectors * 512;
}

/** Logical block size of a block device in bytes; undefined when the system does not tell. */
export async function deviceBlockSize(rdev: bigint): Promise<number | undefined> {
  const folder = deviceFolder(rdev);
  // A partition has its disk's queue, one folder up.
  return (
    (await numberIn(`${folder}/queue/logical_block_size`)) ?? (await numberIn(`${folder}/../queue/logical_block_size`))
  );
}
