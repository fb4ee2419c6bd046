/** Files by name on this machine. */
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { asBlockError, BlockError, codeOf, errorText } from '../core/errors.ts';
import type { HostContext, HostFile, HostFileInfo, HostFileMode, HostFiles } from '../core/host.ts';
import { AlignedMemory } from './aligned.ts';
import { AT_ONCE, type BlockingCalls, type MainCalls, THREAD_POOL } from './calls.ts';
import type { NodeContext } from './context.ts';
import { NodeFile, ownContext } from './file.ts';
import { QuickNames } from './quick-names.ts';
import { deviceBlockSize, deviceCapacity, kindOf, type Storage, storageOf, UNKNOWN_STORAGE } from './storage.ts';
import type { Syscalls } from './syscalls.ts';

/** Not those of node:fs/promises, which takes milliseconds to load. */
const chmod = promisify(fs.chmod);
const readdir = promisify(fs.readdir);
const unlink = promisify(fs.unlink);

const { O_RDONLY, O_RDWR, O_CREAT, O_TRUNC, O_EXCL } = fs.constants;
/** Missing on some systems. */
const O_DIRECT: number | undefined = fs.constants.O_DIRECT;

/** As many symbolic links as the kernel follows. */
const LONGEST_LINK_CHAIN = 40;

export class NodeFiles implements HostFiles {
  /** `/tmp` is often in memory, and overlays can grow (BL-MISC-1). */
  readonly temporaryFolder = tmpdir() === '/tmp' ? '/var/tmp' : tmpdir();
  readonly #syscalls: Syscalls;
  readonly #now: () => number;
  readonly #quickNames: QuickNames | undefined;

  /** `atOnce`: nothing else waits for the event loop, which makes quick calls itself. */
  constructor(syscalls: Syscalls, now: () => number, atOnce: boolean) {
    this.#syscalls = syscalls;
    this.#now = now;
    this.#quickNames = atOnce ? new QuickNames() : undefined;
  }

  /** Who makes the main context's calls on a name. `fresh`: see {@link QuickNames}. */
  async #callsOn(name: string, fresh = false): Promise<MainCalls> {
    const looking = this.#quickNames?.isQuick(name, fresh);
    if (looking === undefined) return THREAD_POOL;
    // In the time that the pool takes for the first look.
    this.#syscalls.prepare();
    return (await looking) ? AT_ONCE : THREAD_POOL;
  }

  async open(name: string, mode: HostFileMode): Promise<HostFile> {
    const context = ownContext(mode.context);
    context?.enter();
    try {
      const calls = context?.calls ?? (await this.#callsOn(name, mode.create === 'new'));
      const fd = await calls.open(name, openFlags(mode), mode.createMode ?? 0o644);
      try {
        return await this.#wrap(name, fd, mode, context, calls);
      } catch (error) {
        await calls.close(fd);
        throw error;
      }
    } catch (error) {
      context?.leave();
      throw error;
    }
  }

  async #wrap(
    name: string,
    fd: number,
    mode: HostFileMode,
    context: NodeContext | undefined,
    calls: BlockingCalls,
  ): Promise<HostFile> {
    const [stats, storage] = await Promise.all([calls.stat(fd), storageOf(name, calls)]);
    const kind = kindOf(stats.mode);
    const size =
      kind === 'block' ? await this.#capacity(fd, stats.rdev, context) : safeSize(kind === 'regular' ? stats.size : 0n);
    const direct = mode.direct === true && (kind === 'regular' || kind === 'block');
    const device = kind === 'block' ? stats.rdev : undefined;
    const alignment = direct ? await this.#directAlignment(fd, device, context) : undefined;
    const aligned = alignment && new AlignedMemory(this.#syscalls, alignment.memory);
    if (aligned) aligned.give(aligned.take(1));
    // A device node lies on a file system that says nothing about the device.
    const known: Storage = kind === 'regular' ? storage : UNKNOWN_STORAGE;
    const quick = this.#quickNames !== undefined && known.quick;
    if (quick && mode.create === 'new') this.#quickNames?.remember(name);
    return new NodeFile({
      fd,
      kind,
      size,
      allocated: Number(stats.blocks * 512n),
      storage: known,
      requestAlign: alignment?.offset ?? 1,
      aligned,
      aio: mode.aio ?? 'auto',
      calls: quick ? AT_ONCE : THREAD_POOL,
      context,
      syscalls: this.#syscalls,
      now: this.#now,
    });
  }

  async #capacity(fd: number, rdev: bigint, context: NodeContext | undefined): Promise<number> {
    return (await deviceCapacity(rdev)) ?? Math.max(0, await this.#syscalls.seekIn(context, fd, 'end', 0));
  }

  /** What O_DIRECT needs: told by the device or the kernel, else a page, which always does. */
  async #directAlignment(
    fd: number,
    rdev: bigint | undefined,
    context: NodeContext | undefined,
  ): Promise<{ memory: number; offset: number }> {
    const told = await this.#syscalls.directAlignment(context, fd);
    const block = told?.offset ?? (rdev === undefined ? undefined : await deviceBlockSize(rdev)) ?? 4096;
    const offset = Math.max(512, block);
    return { offset, memory: Math.max(1, told?.memory ?? offset) };
  }

  async stat(name: string, context?: HostContext): Promise<HostFileInfo> {
    const calls = ownContext(context)?.calls ?? (await this.#callsOn(name));
    const stats = await calls.stat(name);
    const kind = kindOf(stats.mode);
    const size =
      kind === 'block' ? ((await deviceCapacity(stats.rdev)) ?? 0) : kind === 'regular' ? safeSize(stats.size) : 0;
    const identity = kind === 'block' || kind === 'character' ? `device ${stats.rdev}` : `${stats.dev}:${stats.ino}`;
    return { kind, size, allocated: Number(stats.blocks * 512n), identity };
  }

  async resolve(name: string): Promise<string> {
    let target = path.resolve(name);
    for (let links = 0; links < LONGEST_LINK_CHAIN; links++) {
      const { realPath, readLink } = await this.#callsOn(target);
      try {
        return await realPath(target);
      } catch (error) {
        if (codeOf(error) !== 'ENOENT') throw error;
      }
      // The last component is missing, or is a link to what is missing.
      const folder = await realPath(path.dirname(target));
      target = path.join(folder, path.basename(target));
      const link = await readLink(target).catch(() => undefined);
      if (link === undefined) return target;
      target = path.resolve(folder, link);
    }
    throw new BlockError('ELOOP', errorText('ELOOP'));
  }

  async remove(name: string): Promise<void> {
    await unlink(name).catch(fail);
  }

  async rename(from: string, to: string): Promise<void> {
    const [calls, there] = await Promise.all([this.#callsOn(from), this.#callsOn(to)]);
    const old = await there.stat(to).catch(() => undefined);
    // The replaced file's storage is given back, and ext4 starts to write the new one's data first.
    if (old === undefined) return (there === AT_ONCE ? calls : there).rename(from, to);
    await chmod(from, Number(old.mode) & 0o7777).catch(fail);
    await THREAD_POOL.rename(from, to);
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

function safeSize(size: bigint): number {
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw new BlockError('EFBIG', errorText('EFBIG'));
  return Number(size);
}
