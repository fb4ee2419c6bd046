/** What a Linux guest is made of, from this machine: QEMU, a kernel of Debian with its modules, BusyBox, e2fsprogs. */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { guestFolder } from '../../scripts/guest.mjs';
import { findProgram } from '../../scripts/peers.mjs';

const EMULATOR = 'qemu-system-x86_64';

/** The guest's drivers of disks and file systems. One that is no module is taken to be built into the kernel. */
const MODULES = ['virtio_pci', 'virtio_blk', 'crc32c_generic', 'ext4'];

/** Programs copied into the guest beside BusyBox. */
const TOOLS = ['mke2fs', 'e2fsck'];

const APPLETS = ['ash', 'blkdiscard', 'fdisk', 'fstrim', 'insmod', 'mke2fs', 'sha256sum'];

export interface GuestParts {
  readonly emulator: string;
  readonly kernel: string;
  /** Files, in the order in which they are loaded. */
  readonly modules: readonly string[];
  readonly busybox: string;
  readonly tools: readonly string[];
}

/** Where kernels are looked for: what scripts/guest.mjs unpacked, then the system. */
const PLACES = [guestFolder, '/'];

function readable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

/** The newest kernel that may be read and has its modules beside it. */
function findKernel(): { readonly kernel: string; readonly modules: readonly string[] } | undefined {
  for (const place of PLACES) {
    const boot = join(place, 'boot');
    const names = existsSync(boot) ? readdirSync(boot).filter((name) => name.startsWith('vmlinuz-')) : [];
    for (const name of names.sort().reverse()) {
      const folder = join(place, 'lib/modules', name.slice('vmlinuz-'.length), 'kernel');
      if (!readable(join(boot, name)) || !existsSync(folder)) continue;
      return { kernel: join(boot, name), modules: modulesIn(folder) };
    }
  }
  return undefined;
}

const moduleName = (path: string) =>
  basename(path)
    .replace(/\.ko(\.xz)?$/, '')
    .replaceAll('-', '_');

/** MODULES and what they need, each after what it needs. */
function modulesIn(folder: string): string[] {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((path) => /\.ko(\.xz)?$/.test(path));
  const byName = new Map(files.map((path) => [moduleName(path), join(folder, path)]));
  const ordered = new Set<string>();
  const add = (name: string) => {
    const path = byName.get(name.replaceAll('-', '_'));
    if (path === undefined || ordered.has(path)) return;
    const needs = /(?:^|\0)depends=([^\0]*)\0/.exec(moduleBytes(path).toString('latin1'))?.[1] ?? '';
    for (const needed of needs.split(',')) add(needed);
    ordered.add(path);
  };
  for (const name of MODULES) add(name);
  return [...ordered];
}

/** A module as the kernel takes it, without the compression of newer packages. */
export function moduleBytes(path: string): Buffer {
  if (!path.endsWith('.xz')) return readFileSync(path);
  const { status, stdout } = spawnSync('xz', ['-dc', path], { maxBuffer: 1 << 28 });
  if (status !== 0) throw new Error(`xz cannot unpack ${path}`);
  return stdout;
}

function find(): GuestParts | string {
  const [emulator, busybox] = [findProgram(EMULATOR), findProgram('busybox')];
  if (process.arch !== 'x64') return 'the guest is for x86-64';
  if (emulator === undefined) return `${EMULATOR} is not installed (Debian: qemu-system-x86)`;
  if (busybox === undefined) return 'busybox is not installed (Debian: busybox-static)';
  const applets = spawnSync(busybox, ['--list'], { encoding: 'utf8' }).stdout.split('\n');
  const lacking = APPLETS.filter((name) => !applets.includes(name));
  if (lacking.length > 0) return `busybox has no ${lacking.join(', ')} (Debian: busybox-static)`;
  const tools = TOOLS.map(findProgram).filter((path) => path !== undefined);
  if (tools.length < TOOLS.length) return `${TOOLS.join(' or ')} is not installed (Debian: e2fsprogs)`;
  const found = findKernel();
  if (found === undefined) return 'there is no kernel for the guest (node scripts/guest.mjs fetches one)';
  return { emulator, busybox, tools, ...found };
}

const found = find();

export const guestParts: GuestParts | undefined = typeof found === 'string' ? undefined : found;

/** For names of tests: why they are skipped; empty where all is there. */
export const guestNote: string = typeof found === 'string' ? ` (skipped: ${found})` : '';
