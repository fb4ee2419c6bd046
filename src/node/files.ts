/** Files by name on this machine. */
import fs from 'node:fs';
import { chmod, lstat, readdir, readlink, realpath, rename, stat, unlink } from 'node:fs/promises';
import path from 'node:path';
import { asBlockError, BlockError, codeOf, errorText } from '../core/errors.ts';
import type { HostFile, HostFileInfo, HostFileMode, HostFiles } from '../core/host.ts';
import { AlignedMemory } from './aligned.ts';
import { finished } from './fd.ts';
import { NodeFile } from './file.ts';
import { deviceBlockSize, deviceCapacity, kindOf, type Storage, storageOf, UNKNOWN_STORAGE } from './storage.ts';
import type { Syscalls } from './syscalls.ts';

const { O_RDONLY, O_RDWR, O_CREAT, O_TRUNC, O_EXCL } = fs.constants;
/** Missing on some systems. */
const O_DIRECT: number | undefined = fs.constants.O_DIRECT;

/** As many symbolic links as the kernel follows. */
const LONGEST_LINK_CHAIN = 40;

export class NodeFiles implements HostFiles {
  readonly #syscalls: Syscalls;
  readonly #now: () => number;

  constructor(syscalls: Syscalls, now: () => number) {
    this.#syscalls = syscalls;
    this.#now = now;
  }

  async open(name: string, mode: HostFileMode): Promise<HostFile> {
    const fd = await openFd(name, openFlags(mode), mode.createMode ?? 0o644);
    try {
      return await this.#wrap(name, fd, mode);
    } catch (error) {
      await finished((done) => fs.close(fd, done));
      throw error;
    }
  }

  async #wrap(name: string, fd: number, mode: HostFileMode): Promise<HostFile> {
    const [stats, storage] = await Promise.all([statFd(fd), storageOf(name)]);
    const kind = kindOf(stats);
    const size =
      kind === 'block' ? await this.#capacity(fd, stats.rdev) : safeSize(kind === 'regular' ? stats.size : 0n);
    const direct = mode.direct === true && (kind === 'regular' || kind === 'block');
    const alignment = direct ? await this.#directAlignment(fd, kind === 'block' ? stats.rdev : undefined) : undefined;
    const aligned = alignment && new AlignedMemory(this.#syscalls, alignment.memory);
    if (aligned) aligned.give(aligned.take(1));
    // A device node lies on a file system that says nothing about the device.
    const known: Storage = kind === 'regular' ? storage : UNKNOWN_STORAGE;
    return new NodeFile({
      fd,
      kind,
      size,
      storage: known,
      requestAlign: alignment?.offset ?? 1,
      aligned,
      aio: mode.aio ?? 'auto',
      syscalls: this.#syscalls,
      now: this.#now,
    });
  }

  async #capacity(fd: number, rdev: bigint): Promise<number> {
    return (await deviceCapacity(rdev)) ?? Math.max(0, this.#syscalls.seekEnd(fd));
  }

  /** What O_DIRECT needs: told by the device or the kernel, else a page, which always does. */
  async #directAlignment(fd: number, rdev: bigint | undefined): Promise<{ memory: number; offset: number }> {
    const told = this.#syscalls.directAlignment(fd);
    const block = told?.offset ?? (rdev === undefined ? undefined : await deviceBlockSize(rdev)) ?? 4096;
    const offset = Math.max(512, block);
    return { offset, memory: Math.max(1, told?.memory ?? offset) };
  }

  async stat(name: string): Promise<HostFileInfo> {
    const stats = await stat(name, { bigint: true }).catch(fail);
    const kind = kindOf(stats);
    const size =
      kind === 'block' ? ((await deviceCapacity(stats.rdev)) ?? 0) : kind === 'regular' ? safeSize(stats.size) : 0;
    const identity = kind === 'block' || kind === 'character' ? `device ${stats.rdev}` : `${stats.dev}:${stats.ino}`;
    return { kind, size, allocated: Number(stats.blocks * 512n), identity };
  }

  async resolve(name: string): Promise<string> {
    let target = path.resolve(name);
    for (let links = 0; links < LONGEST_LINK_CHAIN; links++) {
      try {
        return await realpath(target);
      } catch (error) {
        if (codeOf(error) !== 'ENOENT') return fail(error);
      }
      // The last component is missing, or is a link to what is missing.
      const folder = await realpath(path.dirname(target)).catch(fail);
      target = path.join(folder, path.basename(target));
      const link = await lstat(target).catch(() => undefined);
      if (!link?.isSymbolicLink()) return target;
      target = path.resolve(folder, await readlink(target).catch(fail));
    }
    throw new BlockError('ELOOP', errorText('ELOOP'));
  }

  async remove(name: string): Promise<void> {
    await unlink(name).catch(fail);
  }

  async rename(from: string, to: string): Promise<void> {
    const old = await stat(to).catch(() => undefined);
    if (old) await chmod(from, old.mode & 0o7777).catch(fail);
    await rename(from, to).catch(fail);
  }

  async list(name: string): Promise<string[]> {
    return await readdir(name).catch(fail);
  }
}

function fail(error: unknown): never {
  throw asBlockError(error);
}

function openFlags(mode: HostFileMode): number {
  let flags = mode.write ? O_RDWR : O_RDONLY;
  if (mode.create === 'truncate') flags |= O_CREAT | O_TRUNC;
  if (mode.create === 'new') flags |= O_CREAT | O_EXCL;
  if (mode.direct !== true) return flags;
  if (O_DIRECT === undefined) {
    throw new BlockError('EINVAL', 'The system has no access past its cache');
  }
  return flags | O_DIRECT;
}

function openFd(name: string, flags: number, createMode: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.open(name, flags, createMode, (error, fd) => {
      if (error) reject(asBlockError(error));
      else resolve(fd);
    });
  });
}

function statFd(fd: number): Promise<fs.BigIntStats> {
  return new Promise((resolve, reject) => {
    fs.fstat(fd, { bigint: true }, (error, stats) => {
      if (error) reject(asBlockError(error));
      else resolve(stats);
    });
  });
}

function safeSize(size: bigint): number {
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw new BlockError('EFBIG', errorText('EFBIG'));
  return Number(size);
}
