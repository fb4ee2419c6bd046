/** Files and block devices of the host. */
import {
  type DriverNode,
  defineProtocol,
  type Extent,
  type OpenContext,
  type ProtocolCreateContext,
  type TruncateOptions,
} from '../core/driver.ts';
import { BlockError, codeOf, withErrno } from '../core/errors.ts';
import { stripPrefix } from '../core/filename.ts';
import type { Host, HostFile } from '../core/host.ts';
import { option } from '../core/options.ts';
import { Permission } from '../core/permissions.ts';
import { FileLocks } from './file-locks.ts';

interface FileOptions {
  readonly filename: string;
  readonly locking: 'on' | 'off' | 'auto';
  readonly aio: 'auto' | 'threads' | 'native' | 'io_uring';
  readonly 'drop-cache': boolean;
  readonly 'x-check-cache-dropped': boolean;
}

interface FileCreateOptions {
  readonly nocow: boolean;
  readonly preallocation: string;
  readonly extent_size_hint: number;
  readonly size: number;
}

const options = {
  filename: option.text({ help: 'File name of the image', fallback: '' }),
  locking: option.choice(['on', 'off', 'auto'], {
    help: 'whether to lock the file for other processes to see (on/off/auto)',
    fallback: 'auto',
  }),
  aio: option.choice(['auto', 'threads', 'native', 'io_uring'], {
    help: 'how requests go: auto answers cached ones at once, the others always use threads',
    fallback: 'auto',
  }),
  'drop-cache': option.boolean({ help: 'accepted for compatibility; without effect', fallback: true }),
  'x-check-cache-dropped': option.boolean({ help: 'accepted for compatibility; without effect', fallback: false }),
};

const createOptions = {
  nocow: option.boolean({ help: 'Turn off copy-on-write (valid only on btrfs)', fallback: false }),
  preallocation: option.text({
    help: 'Preallocation mode (allowed values: off, falloc, full)',
    fallback: 'off',
  }),
  extent_size_hint: option.size({ help: 'Extent size hint for the image file, 0 to disable', fallback: 0 }),
  size: option.size({ help: 'Virtual disk size', fallback: 0 }),
};

/** Zeroes are written in pieces of this many bytes when a file is filled. */
const FILL_PIECE = 1 << 20;

export const file = defineProtocol<FileOptions, FileCreateOptions>({
  name: 'file',
  summary: 'A regular file of the host',
  options,
  strongOptions: ['filename'],
  needsFilename: true,
  growable: true,
  parseFilename: (filename) => ({ filename: stripPrefix(filename, 'file') }),
  exactFilename: ({ filename }) => String(filename ?? ''),
  create: { options: createOptions, run: createFile },
  open: (context) => openFile(context, 'file', ['regular']),
});

export const hostDevice = defineProtocol<FileOptions>({
  name: 'host_device',
  summary: 'A block device of the host',
  options,
  strongOptions: ['filename'],
  needsFilename: true,
  parseFilename: (filename) => ({ filename: stripPrefix(filename, 'host_device') }),
  exactFilename: ({ filename }) => String(filename ?? ''),
  async probeDevice(filename, host) {
    if (filename.startsWith('/dev/cdrom')) return 50;
    const info = await host.files.stat(filename).catch(() => undefined);
    return info?.kind === 'block' || info?.kind === 'character' ? 100 : 0;
  },
  open: (context) => openFile(context, 'host_device', ['block', 'character']),
});

async function openFile(
  context: OpenContext<FileOptions>,
  driver: string,
  kinds: readonly HostFile['kind'][],
): Promise<DriverNode> {
  const { host, cache } = context;
  const { filename, aio } = context.options;
  if (aio === 'native' && !cache.direct) {
    const text = 'aio=native was specified, but it requires cache.direct=on, which was not specified.';
    throw new BlockError('EINVAL', text);
  }
  const { handle, degraded } = await openHandle(context);
  if (!kinds.includes(handle.kind)) {
    await handle.close();
    const expected = driver === 'file' ? 'a regular file' : 'a character or block device';
    throw new BlockError('EINVAL', `'${driver}' driver requires '${filename}' to be ${expected}`);
  }
  return fileNode(host, handle, context.options, degraded);
}

async function openHandle({
  options: { filename, aio },
  host,
  writable,
  autoReadOnly,
  cache,
}: OpenContext<FileOptions>) {
  const mode = { direct: cache.direct, aio: aio === 'auto' ? ('auto' as const) : ('threads' as const) };
  try {
    return { handle: await host.files.open(filename, { ...mode, write: writable }), degraded: false };
  } catch (error) {
    const code = codeOf(error);
    if (writable && autoReadOnly && (code === 'EACCES' || code === 'EROFS' || code === 'EPERM')) {
      const handle = await host.files.open(filename, { ...mode, write: false }).catch(() => undefined);
      if (handle !== undefined) return { handle, degraded: true };
    }
    throw withErrno(code, `Could not open '${filename}'`, { cause: error });
  }
}

function fileNode(host: Host, handle: HostFile, { locking, filename }: FileOptions, readOnly: boolean): DriverNode {
  let locks = locking === 'off' ? undefined : new FileLocks(handle, filename);
  const can = { zeroRange: true, punchHole: true };
  const extent = (offset: number, length: number): Extent => {
    const run = handle.extent(offset, length);
    return { kind: run.kind === 'hole' ? 'zero' : 'data', length: run.length, at: { offset } };
  };
  /** Tries an operation the host may lack; remembers that it does. */
  const attempt = async (ability: keyof typeof can, work: () => Promise<void>): Promise<boolean> => {
    if (!can[ability]) return false;
    try {
      await work();
      return true;
    } catch (error) {
      if (codeOf(error) !== 'ENOTSUP') throw error;
      can[ability] = false;
      host.notice(`'${filename}': the host cannot do ${ability === 'zeroRange' ? 'zero ranges' : 'holes'}`);
      return false;
    }
  };
  const node: DriverNode = {
    readOnly,
    length: () => handle.size(),
    async read(offset, target) {
      const count = await handle.read(offset, target);
      // Past the end, or cut off by someone else meanwhile.
      if (count < target.length) target.fill(0, count);
    },
    tryReadNow(offset, target) {
      const count = handle.tryReadNow(offset, target);
      if (count < 0) return false;
      if (count < target.length) target.fill(0, count);
      return true;
    },
    write: (offset, source) => handle.write(offset, source),
    tryWriteNow: (offset, source) => handle.tryWriteNow(offset, source),
    async writeZeroes(offset, length, { unmap }) {
      const inside = offset + length <= handle.size();
      if (unmap && inside && (await attempt('punchHole', () => handle.punchHole(offset, length)))) return;
      if (await attempt('zeroRange', () => handle.zeroRange(offset, length))) return;
      if (!inside && offset >= handle.size() && handle.kind === 'regular') return handle.truncate(offset + length);
      throw withErrno('ENOTSUP', `Cannot zero a range of '${filename}'`);
    },
    discard: (offset, length) => (handle.discard ?? handle.punchHole).call(handle, offset, length),
    flush: () => handle.flush(),
    status: async (offset, length) => extent(offset, length),
    tryStatusNow: extent,
    limits: () => ({ requestAlign: handle.requestAlign }),
    truncate: (length, truncateOptions) => resize(handle, filename, length, truncateOptions),
    allocatedSize: () => handle.allocated(),
    async copyFrom(source, sourceOffset, offset, length) {
      const from = handles.get(source);
      if (from === undefined) throw withErrno('ENOTSUP', `Cannot copy into '${filename}' inside the host`);
      return handle.copyFrom(from, sourceOffset, offset, length);
    },
    info: () => ({ dirty: false, specific: { type: 'file', data: {} } }),
    zeroInit: () => handle.kind === 'regular',
    preparePermissions(next) {
      try {
        return locks?.prepare(next) ?? { commit() {}, abort() {} };
      } catch (error) {
        if (locking !== 'auto' || codeOf(error) !== 'ENOTSUP') throw error;
        host.notice(`'${filename}': the host has no locks of open files; other processes are not kept away`);
        locks = undefined;
        return { commit() {}, abort() {} };
      }
    },
    close: () => handle.close(),
  };
  handles.set(node, handle);
  return node;
}

/** The host's files behind nodes, for copying between two of them. */
const handles = new WeakMap<DriverNode, HostFile>();

async function resize(
  handle: HostFile,
  filename: string,
  length: number,
  { preallocation = 'off' }: TruncateOptions,
): Promise<void> {
  const before = handle.size();
  if (preallocation === 'metadata') throw new BlockError('ENOTSUP', 'Unsupported preallocation mode: metadata');
  if (preallocation !== 'off' && length < before) {
    throw new BlockError('ENOTSUP', 'Preallocation can only be used for growing images');
  }
  if (handle.kind !== 'regular') {
    if (length > before) throw new BlockError('EINVAL', `Cannot grow device '${filename}'`);
    return;
  }
  try {
    if (preallocation === 'falloc' && length > before) await handle.allocate(before, length - before);
    else if (preallocation === 'full') await fill(handle, before, length);
    else await handle.truncate(length);
  } catch (error) {
    if (preallocation !== 'off') await handle.truncate(before).catch(() => {});
    const text = preallocation === 'off' ? 'Failed to resize the file' : 'Could not preallocate data for the new file';
    throw withErrno(codeOf(error), text, { cause: error });
  }
}

async function fill(handle: HostFile, from: number, to: number): Promise<void> {
  const zeroes = new Uint8Array(FILL_PIECE);
  for (let at = from; at < to; at += FILL_PIECE)
    await handle.write(at, zeroes.subarray(0, Math.min(FILL_PIECE, to - at)));
  await handle.flush();
}

/** Makes an empty or preallocated file, once nobody else uses the one that is there. */
async function createFile({
  filename,
  options: wanted,
  host,
}: ProtocolCreateContext<FileCreateOptions>): Promise<void> {
  const name = stripPrefix(filename, 'file');
  const preallocation = preallocationMode(wanted.preallocation);
  if (wanted.size > Number.MAX_SAFE_INTEGER) throw new BlockError('EFBIG', 'File too large');
  const existing = await host.files.open(name, { write: true }).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw withErrno(codeOf(error), `Could not create '${name}'`, { cause: error });
  });
  const handle =
    existing ??
    (await host.files.open(name, { write: true, create: 'truncate' }).catch((error: unknown) => {
      throw withErrno(codeOf(error), `Could not create '${name}'`, { cause: error });
    }));
  try {
    const locks = new FileLocks(handle, name);
    const need = Permission.consistentRead | Permission.write | Permission.resize;
    try {
      locks.prepare({ need, share: 15 & ~(Permission.write | Permission.resize) }).commit();
    } catch (error) {
      if (codeOf(error) !== 'ENOTSUP') throw error;
    }
    await handle.truncate(0);
    if (wanted.nocow) whereSupported(() => handle.setNoCopyOnWrite?.());
    if (wanted.extent_size_hint > 0) whereSupported(() => handle.setExtentSizeHint?.(wanted.extent_size_hint));
    await resize(handle, name, wanted.size, { preallocation });
  } finally {
    await handle.close();
  }
}

/** Told here and not by the schema: it comes after the `Formatting` line (T-CREATE-2). */
function preallocationMode(text: string): 'off' | 'falloc' | 'full' {
  if (text === 'off' || text === 'falloc' || text === 'full') return text;
  if (text === 'metadata') throw new BlockError('EINVAL', 'Unsupported preallocation mode: metadata');
  throw new BlockError('EINVAL', `invalid parameter value: ${text}`);
}

/** Hints that a file system need not know. */
function whereSupported(hint: () => void): void {
  try {
    hint();
  } catch (error) {
    if (codeOf(error) !== 'ENOTSUP' && codeOf(error) !== 'ENOTTY') throw error;
  }
}
