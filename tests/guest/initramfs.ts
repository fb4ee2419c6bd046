/** The guest's root file system: an archive in cpio's "newc" format, as the kernel unpacks it into memory. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { type GuestParts, moduleBytes } from './parts.ts';

/** Begins what the guest says of itself on its console. */
export const MARK = '@@guest';

const FOLDER = 0o040755;
const PROGRAM = 0o100755;

/** Runs one line after the other from the console, and tells how each ended. */
function initScript(modules: readonly string[]): string {
  return [
    '#!/bin/busybox sh',
    '/bin/busybox --install -s /bin',
    'export PATH=/sbin:/bin MKE2FS_SYNC=0',
    'mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev',
    ...modules.map((name) => `insmod /modules/${name}`),
    'stty -echo -onlcr',
    'mkdir -p /mnt/a /mnt/b',
    `echo ${MARK} ready`,
    `while read -r line; do eval "$line" </dev/null 2>&1; echo "${MARK} $?"; done`,
    'poweroff -f',
    '',
  ].join('\n');
}

/** The shared libraries that a program is linked with; none for a static one. */
function librariesOf(program: string): string[] {
  const { stdout } = spawnSync('ldd', [program], { encoding: 'utf8' });
  return [...stdout.matchAll(/(?:=> |^\s+)(\/\S+) \(0x/gm)].map(([, path]) => path ?? '');
}

class Archive {
  readonly #entries = new Map<string, { readonly mode: number; readonly bytes: Uint8Array }>();

  /** A file, and the folders it is in; a path that is there already stays as it is. */
  add(path: string, bytes: Uint8Array, mode: number = PROGRAM): void {
    const folder = dirname(path);
    if (folder !== '.' && folder !== '/') this.add(folder, new Uint8Array(0), FOLDER);
    if (!this.#entries.has(path)) this.#entries.set(path, { mode, bytes });
  }

  toBytes(): Buffer {
    const pieces: Uint8Array[] = [];
    let inode = 1;
    const entries = [...this.#entries, ['TRAILER!!!', { mode: 0, bytes: new Uint8Array(0) }] as const];
    for (const [path, { mode, bytes }] of entries) {
      const name = `${path.replace(/^\//, '')}\0`;
      // Inode, mode, owner, group, links, time, size, device (2), special device (2), length of the name, no checksum.
      const fields = [inode++, mode, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, name.length, 0];
      const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${name}`;
      pieces.push(padded(Buffer.from(header, 'latin1')), padded(bytes));
    }
    return Buffer.concat(pieces);
  }
}

function padded(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, new Uint8Array(-bytes.length & 3)]);
}

export function initramfs({ busybox, modules, tools }: GuestParts): Buffer {
  const archive = new Archive();
  archive.add('/init', Buffer.from(initScript(modules.map(inGuest))));
  for (const folder of ['/proc', '/sys', '/dev', '/tmp', '/etc']) archive.add(folder, new Uint8Array(0), FOLDER);
  archive.add('/bin/busybox', readFileSync(busybox));
  // In its own folder: BusyBox puts its applets of these names into /bin.
  for (const tool of tools) archive.add(`/sbin/${basename(tool)}`, readFileSync(tool));
  for (const library of new Set([busybox, ...tools].flatMap(librariesOf))) archive.add(library, readFileSync(library));
  for (const path of modules) archive.add(`/modules/${inGuest(path)}`, moduleBytes(path));
  return archive.toBytes();
}

function inGuest(modulePath: string): string {
  return basename(modulePath).replace(/\.xz$/, '');
}
