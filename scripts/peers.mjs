/**
 * The programs that tests and the guided tour hold our work against, from Debian's packages. Installed where that may
 * be done (root, apt-get); elsewhere it is said what is missing and what will be skipped.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Debian package: the programs of it that are used, and what is lost without them. */
const PEERS = {
  'qemu-utils': {
    programs: ['qemu-img', 'qemu-io', 'qemu-nbd'],
    without: 'interop tests against qemu-img, qemu-io and qemu-nbd',
  },
  e2fsprogs: { programs: ['mke2fs', 'e2fsck', 'debugfs'], without: 'tests on an ext4 file system' },
  dosfstools: { programs: ['mkfs.fat', 'fsck.fat'], without: 'tests on a FAT file system' },
  mtools: { programs: ['mcopy'], without: 'tests that put files in a FAT file system' },
  nbdkit: { programs: ['nbdkit'], without: 'tests with a disk that hangs, and of NBD' },
  'libnbd-bin': {
    programs: ['nbdinfo', 'nbdcopy', 'nbdfuse'],
    without: 'tests with a disk that hangs, and of NBD with libnbd',
  },
  'python3-libnbd': { programs: ['nbdsh'], without: 'a test of NBD with nbdsh' },
  'nbd-client': { programs: ['nbd-client'], without: 'a test of NBD with nbd-client' },
  fio: { programs: ['fio'], without: 'a test of NBD under load' },
  'gnutls-bin': { programs: ['certtool', 'psktool'], without: 'tests of NBD with TLS certificates of GnuTLS' },
  openssl: { programs: ['openssl'], without: 'tests of NBD with TLS certificates' },
  fuse3: { programs: ['fusermount3'], without: 'tests with a disk that hangs' },
};

/** Where an ordinary user's PATH does not lead, but mkfs lives. */
const SYSTEM_FOLDERS = ['/usr/sbin', '/sbin'];

export function findProgram(name) {
  for (const folder of [...(process.env.PATH ?? '').split(delimiter), ...SYSTEM_FOLDERS]) {
    const path = join(folder || '.', name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Look on.
    }
  }
  return undefined;
}

function missingPackages() {
  return Object.keys(PEERS).filter((name) =>
    PEERS[name].programs.some((program) => findProgram(program) === undefined),
  );
}

function whyNotInstalled() {
  if (process.env.DISKWRIGHT_NO_APT) return 'DISKWRIGHT_NO_APT is set';
  if (findProgram('apt-get') === undefined) return 'this system has no apt-get';
  if (process.getuid?.() !== 0) return 'installing them takes root';
  return undefined;
}

function aptGet(...args) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  return spawnSync('apt-get', ['-qq', ...args], { env, stdio: ['ignore', 'ignore', 2] }).status === 0;
}

/** Installs missing peers if it may; says in one line each what will be missing. */
export function installPeers() {
  let missing = missingPackages();
  if (missing.length === 0) return;
  let reason = whyNotInstalled();
  if (reason === undefined) {
    process.stderr.write(`Installing ${missing.join(', ')} (apt-get) …\n`);
    const install = () => aptGet('install', '-y', '--no-install-recommends', ...missing);
    if (!install() && !(aptGet('update') && install())) reason = 'apt-get failed';
    missing = missingPackages();
  }
  for (const name of missing) {
    process.stderr.write(
      `Skipped: ${PEERS[name].without} (${name} is not installed: ${reason ?? 'its programs are missing'})\n`,
    );
  }
}

/** PATH with the system folders, so that tests and the tour find what was found here. */
export function pathWithSystemFolders() {
  const folders = (process.env.PATH ?? '').split(delimiter);
  return [...folders, ...SYSTEM_FOLDERS.filter((folder) => !folders.includes(folder))].join(delimiter);
}
