/** The calls of files as made by a context's threads. */
import type { BlockingCalls, FileStats } from './calls.ts';
import type { NodeContext } from './context.ts';
import { systemError } from './errno.ts';
import type { Syscalls } from './syscalls.ts';

/** Bytes that one call moves where they have to go through shared memory. */
const SHARED_MAX = 1 << 20;

/**
 * Data is read and written where it is, by address, since the threads are of one process. Without the means to call by
 * address it goes through memory that both threads see, and is copied once.
 */
export function threadCalls(context: NodeContext, syscalls: Syscalls): BlockingCalls {
  const byNode = (fs: string, ...parameters: unknown[]) => context.run({ fs, parameters });

  const byAddress = async (
    [sequential, positioned]: readonly ['read', 'pread'] | readonly ['write', 'pwrite'],
    fd: number,
    memory: Uint8Array,
    position: number | null,
  ): Promise<number | undefined> => {
    const prototype = syscalls.prototype(position === null ? sequential : positioned);
    const address = syscalls.address(memory);
    if (prototype === undefined || address === undefined) return undefined;
    const parameters = position === null ? [fd, address, memory.length] : [fd, address, memory.length, position];
    const count = (await context.run({ prototype, parameters }, memory)) as number;
    if (count < 0) throw systemError(-count);
    return count;
  };

  return {
    async read(fd, target, position) {
      const count = await byAddress(['read', 'pread'], fd, target, position);
      if (count !== undefined) return count;
      const shared = sharedMemory(target.length);
      const copied = (await byNode('readSync', fd, shared, 0, shared.length, position)) as number;
      target.set(shared.subarray(0, copied));
      return copied;
    },
    async write(fd, source, position) {
      const count = await byAddress(['write', 'pwrite'], fd, source, position);
      if (count !== undefined) return count;
      const shared = sharedMemory(source.length);
      shared.set(source.subarray(0, shared.length));
      return (await byNode('writeSync', fd, shared, 0, shared.length, position)) as number;
    },
    datasync: async (fd) => {
      await byNode('fdatasyncSync', fd);
    },
    truncate: async (fd, length) => {
      await byNode('ftruncateSync', fd, length);
    },
    close: async (fd) => {
      await byNode('closeSync', fd);
    },
    open: async (name, flags, createMode) => (await byNode('openSync', name, flags, createMode)) as number,
    stat: async (file) =>
      (await byNode(typeof file === 'string' ? 'statSync' : 'fstatSync', file, { bigint: true })) as FileStats,
    fileSystemType: async (name) => ((await byNode('statfsSync', name)) as { readonly type: number }).type,
  };
}

function sharedMemory(length: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(Math.min(length, SHARED_MAX)));
}
