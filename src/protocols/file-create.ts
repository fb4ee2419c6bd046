/** Making host files, and making devices ready for an image (BL-CREATE-1, BL-CREATE-2, T-CREATE-1). */
import { alignUp } from '../bytes/align.ts';
import type { ProtocolCreateContext } from '../core/driver.ts';
import { addContext, BlockError, codeOf } from '../core/errors.ts';
import { stripPrefix } from '../core/filename.ts';
import type { Host, HostFile } from '../core/host.ts';
import { option } from '../core/options.ts';
import { ALL_PERMISSIONS, Permission } from '../core/permissions.ts';
import { FileLocks } from './file-locks.ts';
import { resizeFile } from './file-resize.ts';

export interface FileCreateOptions {
  readonly nocow: boolean;
  readonly preallocation: string;
  readonly extent_size_hint: number;
  readonly size: number;
}

export type DeviceCreateOptions = Pick<FileCreateOptions, 'preallocation' | 'size'>;

const SECTOR = 512;

/** Keeps files on XFS from being stored in very many small pieces. */
const DEFAULT_EXTENT_SIZE_HINT = 1 << 20;

/** In the order of the `Formatting` line (T-CREATE-2). */
export const fileCreateOptions = {
  nocow: option.boolean({ help: 'Turn off copy-on-write (valid only on btrfs)', fallback: false }),
  preallocation: option.text({ help: 'Preallocation mode (allowed values: off, falloc, full)', fallback: 'off' }),
  extent_size_hint: option.size({
    help: 'Extent size hint for the image file, 0 to disable',
    fallback: DEFAULT_EXTENT_SIZE_HINT,
  }),
  size: option.size({ help: 'Virtual disk size', fallback: 0 }),
};

export const deviceCreateOptions = {
  preallocation: option.text({ help: 'Preallocation mode (allowed values: off)', fallback: 'off' }),
  size: option.size({ help: 'Virtual disk size', fallback: 0 }),
};

/** A device is taken as it is: large enough, used by nobody else; its first sector is cleared (BL-CREATE-2). */
export async function prepareDevice(context: ProtocolCreateContext<DeviceCreateOptions>): Promise<void> {
  const { filename, host, options } = context;
  const name = stripPrefix(filename, 'host_device');
  if (options.preallocation !== 'off') {
    throw new BlockError('ENOTSUP', `Unsupported preallocation mode '${options.preallocation}'`);
  }
  const device = await host.files.open(name, { write: true }).catch((error: unknown) => {
    throw addContext(`Could not open '${name}'`, error);
  });
  try {
    lockForCreation(device, name, host);
    await resizeFile(device, options.size, {});
    const length = Math.min(SECTOR, device.size());
    if (length > 0) await device.write(0, new Uint8Array(length));
    await device.flush();
  } finally {
    await device.close();
  }
}

/** Makes an empty or preallocated file; one that is there is emptied, once it is sure that nobody else uses it. */
export async function createFile(context: ProtocolCreateContext<FileCreateOptions>): Promise<void> {
  const { filename, host, signal, options } = context;
  const name = stripPrefix(filename, 'file');
  const preallocation = preallocationMode(options.preallocation);
  if (options.extent_size_hint >= 2 ** 32) throw new BlockError('EINVAL', 'Extent size hint is too large');
  const file = await openOrMake(host, name).catch((error: unknown) => {
    throw addContext(`Could not create '${name}'`, error);
  });
  try {
    if (file.kind !== 'regular') {
      throw new BlockError('EINVAL', `'file' driver requires '${name}' to be a regular file`);
    }
    lockForCreation(file, name, host);
    if (file.size() > 0) await resizeFile(file, 0, {});
    if (options.nocow) whereSupported(() => file.setNoCopyOnWrite?.());
    if (options.extent_size_hint > 0) whereSupported(() => file.setExtentSizeHint?.(options.extent_size_hint));
    // A new file is whole sectors long, whatever was asked for.
    const size = alignUp(options.size, SECTOR);
    if (file.size() !== size) await resizeFile(file, size, { preallocation }, signal);
  } finally {
    await file.close();
  }
}

/** Throws BlockError EAGAIN when another process uses it; closing it drops the locks. */
function lockForCreation(file: HostFile, name: string, host: Host): void {
  const need = Permission.consistentRead | Permission.write | Permission.resize;
  const share = ALL_PERMISSIONS & ~(Permission.write | Permission.resize);
  new FileLocks(file, name, host, 'auto').prepare({ need, share }).commit();
}

/** Never empties what is there: it may be in use, which only its locks tell. */
async function openOrMake(host: Host, name: string): Promise<HostFile> {
  try {
    return await host.files.open(name, { write: true, create: 'new' });
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
  }
  try {
    return await host.files.open(name, { write: true });
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
  // A symbolic link to nothing is there and is not; or the file has just been removed.
  return host.files.open(await host.files.resolve(name), { write: true, create: 'new' });
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
    if (codeOf(error) !== 'ENOTSUP') throw error;
  }
}
