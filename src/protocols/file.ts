/** Files and block devices of the host. */
import { type DriverNode, defineProtocol, type OpenContext, type ReopenTarget } from '../core/driver.ts';
import { addContext, BlockError, codeOf } from '../core/errors.ts';
import { stripPrefix } from '../core/filename.ts';
import type { HostContext, HostFile, HostFileKind } from '../core/host.ts';
import { option } from '../core/options.ts';
import {
  createFile,
  type DeviceCreateOptions,
  deviceCreateOptions,
  type FileCreateOptions,
  fileCreateOptions,
  prepareDevice,
} from './file-create.ts';
import type { Locking } from './file-locks.ts';
import { fileNode } from './file-node.ts';

interface FileOptions {
  readonly filename: string;
  readonly locking: Locking;
  readonly aio: 'auto' | 'threads' | 'native' | 'io_uring';
  readonly 'drop-cache': boolean;
  readonly 'x-check-cache-dropped': boolean;
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
    reopen: true,
  }),
  'drop-cache': option.boolean({ help: 'accepted for compatibility; without effect', fallback: true }),
  'x-check-cache-dropped': option.boolean({ help: 'accepted for compatibility; without effect', fallback: false }),
};

export const file = defineProtocol<FileOptions, FileCreateOptions>({
  name: 'file',
  summary: 'A regular file of the host',
  options,
  strongOptions: ['filename'],
  needsFilename: true,
  growable: true,
  parseFilename: (filename) => ({ filename: stripPrefix(filename, 'file') }),
  exactFilename: ({ filename }) => String(filename ?? ''),
  create: { options: fileCreateOptions, run: createFile },
  open: (context) => openFile(context, FILE),
});

export const hostDevice = defineProtocol<FileOptions, DeviceCreateOptions>({
  name: 'host_device',
  summary: 'A block device of the host',
  options,
  strongOptions: ['filename'],
  needsFilename: true,
  parseFilename: (filename) => ({ filename: stripPrefix(filename, 'host_device') }),
  exactFilename: ({ filename }) => String(filename ?? ''),
  create: { options: deviceCreateOptions, run: prepareDevice },
  async probeDevice(filename, host, context) {
    if (filename.startsWith('/dev/cdrom')) return 50;
    const info = await host.files.stat(filename, context).catch(() => undefined);
    return info?.kind === 'block' || info?.kind === 'character' ? 100 : 0;
  },
  open: (context) => openFile(context, DEVICE),
});

/** What a driver opens, and its words for anything else (T-GEN-9). */
interface Accepted {
  readonly kinds: readonly HostFileKind[];
  readonly refusal: (filename: string) => string;
}
const FILE: Accepted = {
  kinds: ['regular'],
  refusal: (filename) => `'file' driver requires '${filename}' to be a regular file`,
};
const DEVICE: Accepted = {
  kinds: ['block', 'character'],
  refusal: (filename) => `'host_device' driver requires '${filename}' to be either a character or block device`,
};

async function openFile(context: OpenContext<FileOptions>, accepted: Accepted): Promise<DriverNode> {
  const { options, host, cache, hostContext } = context;
  const { filename, locking, aio } = options;
  const refused = () => new BlockError('EINVAL', accepted.refusal(filename));
  // Opening a pipe would wait for its other end.
  const { kind, identity } = await host.files.stat(filename, hostContext).catch(fail(filename));
  if (kind === 'pipe') throw refused();
  const { handle, readOnly } = await openHandle(context);
  if (!accepted.kinds.includes(handle.kind)) {
    await handle.close();
    throw refused();
  }
  if (aio === 'native' && !cache.direct) {
    await handle.close();
    const text = 'aio=native was specified, but it requires cache.direct=on, which was not specified.';
    throw new BlockError('EINVAL', text);
  }
  const reopen = async ({ options: next, writable, cache }: ReopenTarget, now: HostContext | undefined) => {
    const target = {
      host,
      options: next as FileOptions,
      writable,
      cache,
      autoReadOnly: false,
      hostContext: now,
    };
    const { handle: replacement } = await openHandle(target);
    try {
      if ((await host.files.stat(filename, now).catch(fail(filename))).identity === identity) return replacement;
      throw new BlockError('ESTALE', `Could not open '${filename}': the name leads to another file now`);
    } catch (error) {
      await replacement.close().catch(() => {});
      throw error;
    }
  };
  return fileNode(host, handle, { filename, locking, readOnly, context: hostContext, reopen });
}

type HandleContext = Pick<
  OpenContext<FileOptions>,
  'host' | 'hostContext' | 'writable' | 'autoReadOnly' | 'cache' | 'options'
>;

async function openHandle(context: HandleContext): Promise<{ handle: HostFile; readOnly: boolean }> {
  const { host, hostContext, writable, autoReadOnly, cache } = context;
  const { filename, aio } = context.options;
  const mode = {
    direct: cache.direct,
    aio: aio === 'auto' ? ('auto' as const) : ('threads' as const),
    context: hostContext,
  };
  try {
    return { handle: await host.files.open(filename, { ...mode, write: writable }), readOnly: false };
  } catch (error) {
    if (cache.direct && codeOf(error) === 'EINVAL') {
      throw new BlockError('EINVAL', `Could not open '${filename}': filesystem does not support O_DIRECT`, {
        cause: error,
      });
    }
    const refused = codeOf(error) === 'EACCES' || codeOf(error) === 'EROFS';
    if (!writable || !autoReadOnly || !refused) return fail(filename)(error);
  }
  const handle = await host.files.open(filename, { ...mode, write: false }).catch(fail(filename));
  return { handle, readOnly: true };
}

/** T-GEN-9. An error that says more than the system's text keeps it. */
function fail(filename: string): (error: unknown) => never {
  return (error) => {
    throw addContext(`Could not open '${filename}'`, error);
  };
}
