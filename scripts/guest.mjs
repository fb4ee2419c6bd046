/**
 * `node scripts/guest.mjs`: gets what the tests in tests/guest need for their Linux guest, about 190 MB on disk. Debian's
 * kernel is only unpacked, into the user's cache folder, not installed; QEMU and BusyBox are installed if that may be done.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { findProgram } from './peers.mjs';

const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');

/** Where the guest's kernel is unpacked to, with its modules. */
export const guestFolder = join(cache, 'diskwright-guest');

/** The small kernel for virtual machines; this package only names the newest. */
const KERNEL = 'linux-image-cloud-amd64';
const PROGRAMS = { 'qemu-system-x86': 'qemu-system-x86_64', 'busybox-static': 'busybox' };

function run(command, args, cwd) {
  const { status, stdout, error } = spawnSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 2] });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `exit status ${status}`}`);
  return stdout;
}

function installPrograms() {
  const missing = Object.keys(PROGRAMS).filter((name) => findProgram(PROGRAMS[name]) === undefined);
  if (missing.length === 0) return;
  const args = ['install', '-y', '-qq', '--no-install-recommends', ...missing];
  if (process.getuid?.() !== 0) throw new Error(`as root, run: apt-get ${args.join(' ')}`);
  run('apt-get', args);
}

function unpackKernel() {
  const newest = /Depends: (linux-image-\S+)/.exec(run('apt-cache', ['depends', KERNEL]))?.[1];
  if (newest === undefined) throw new Error(`apt knows no ${KERNEL}`);
  const folder = mkdtempSync(join(tmpdir(), 'diskwright-kernel-'));
  try {
    run('apt-get', ['download', '-qq', newest], folder);
    rmSync(guestFolder, { recursive: true, force: true });
    mkdirSync(guestFolder, { recursive: true });
    run('dpkg-deb', ['-x', join(folder, readdirSync(folder)[0] ?? ''), guestFolder]);
    return newest;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    installPrograms();
    process.stdout.write(`${unpackKernel()} is in ${guestFolder}: npx vitest run tests/guest\n`);
  } catch (error) {
    process.stderr.write(`No Linux guest: ${error instanceof Error ? error.message : error}\n`);
    process.exitCode = 1;
  }
}
