/** A Linux guest on disks that our NBD server serves: partitions, file systems, errors it is given (BV-17, N-54, BD-25). */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Disk } from '../../src/core/disk.ts';
import { blkdebugOf } from '../../src/filters/blkdebug/control.ts';
import { blkverifyOf } from '../../src/filters/blkverify/node.ts';
import { check, create, open, type Serving, serve } from '../../src/node/index.ts';
import { Guest } from './guest.ts';
import { guestNote, guestParts } from './parts.ts';

const MIB = 1 << 20;
const SIZE = 64 * MIB;
/** What the guest's fdisk is told to make of the first disk. */
const PARTITIONS = [
  { device: '/dev/vda1', start: MIB, size: 24 * MIB },
  { device: '/dev/vda2', start: 25 * MIB, size: 32 * MIB },
];
const FDISK = 'o\\nn\\np\\n1\\n2048\\n+24M\\nn\\np\\n2\\n51200\\n+32M\\nw\\n';

let folder: string;
let mirrored: Disk;
let faulty: Disk;
let serving: Serving;
let guest: Guest;

async function start(): Promise<void> {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-guest-'));
  const [vdi, raw] = [join(folder, 'disk.vdi'), join(folder, 'disk.img')];
  await create(vdi, { size: SIZE });
  await create(raw, { size: SIZE });
  const test = { driver: 'vdi', discard: 'unmap', file: { driver: 'file', filename: vdi } };
  const tree = { driver: 'blkverify', discard: 'unmap', test, raw: { driver: 'file', filename: raw } };
  mirrored = await open(tree, { writable: true });
  faulty = await open({ driver: 'blkdebug', image: { driver: 'memory', size: SIZE } }, { writable: true });
  const socket = join(folder, 'nbd.sock');
  serving = await serve(mirrored, { name: 'mirrored', socket });
  serving.server.addExport(faulty, { name: 'faulty' });
  guest = await Guest.boot(folder, [
    { socket, export: 'mirrored' },
    { socket, export: 'faulty' },
  ]);
}

async function end(): Promise<void> {
  await guest?.kill();
  await serving?.close();
  await faulty?.close();
  await mirrored?.close();
  rmSync(folder, { recursive: true, force: true });
}

/** How many files {@link fill} leaves. */
const FILES = 184;

/** Fills a mounted file system: large files and small ones, holes, files removed again. Notes their sums in the guest. */
async function fill(path: string): Promise<void> {
  await guest.ok(`cd ${path} && seq 1 60000 > numbers && cp /bin/busybox program && mkdir many`);
  await guest.ok('dd if=/dev/urandom of=random bs=64k count=24 && dd if=random of=holes bs=4k seek=300 count=3');
  await guest.ok(
    'for i in $(seq 200); do echo $i > many/$i; done; sync; rm many/*5 numbers; sync; fstrim -v . || true',
  );
  await guest.ok('seq 7 40000 > numbers; cd /; sync');
  await guest.ok(`find ${path} -type f | xargs sha256sum > /tmp/${basename(path)}`);
}

/** From the disk again, not from the guest's memory. */
async function verifySums(path: string): Promise<void> {
  await guest.ok('sync; echo 3 > /proc/sys/vm/drop_caches');
  expect((await guest.ok(`sha256sum -c /tmp/${basename(path)}`)).match(/: OK$/gm)).toHaveLength(FILES);
}

describe.skipIf(guestNote !== '')(`a Linux guest${guestNote}`, () => {
  beforeAll(start);
  afterAll(end);

  test('finds the disks as they are', async () => {
    expect(await guest.ok('cat /sys/block/vda/size /sys/block/vdb/size')).toBe(`${SIZE / 512}\n${SIZE / 512}\n`);
    expect(await guest.ok('cat /sys/block/vda/queue/write_cache')).toBe('write back\n');
    expect(Number(await guest.ok('cat /sys/block/vda/queue/discard_max_bytes'))).toBeGreaterThan(0);
  });

  test('partitions a disk, formats it, and keeps files on it', async () => {
    await guest.ok(`printf '${FDISK}' | fdisk -u /dev/vda`);
    expect(await guest.ok('cat /sys/block/vda/vda1/size /sys/block/vda/vda2/start')).toBe('49152\n51200\n');
    await guest.ok('/bin/mke2fs /dev/vda1 && /sbin/mke2fs -q -F -t ext4 /dev/vda2');
    await guest.ok('mount -t ext2 /dev/vda1 /mnt/a && mount -t ext4 -o discard /dev/vda2 /mnt/b');
    for (const path of ['/mnt/a', '/mnt/b']) {
      await fill(path);
      await verifySums(path);
    }
    await guest.ok(
      'umount /mnt/a && umount /mnt/b && mount -t ext2 /dev/vda1 /mnt/a && mount -t ext4 /dev/vda2 /mnt/b',
    );
    for (const path of ['/mnt/a', '/mnt/b']) await verifySums(path);
    await guest.ok('umount /mnt/a && umount /mnt/b && e2fsck -fn /dev/vda1 && e2fsck -fn /dev/vda2');
    expect(serving.stats().errors).toBe(0);
    expect(blkverifyOf(mirrored).counts()).toMatchObject({ mismatches: 0 });
    await blkverifyOf(mirrored).verify();
  });

  test('writes, trims: both arrive', async () => {
    await guest.ok('dd if=/bin/busybox of=/dev/vdb bs=64k seek=128 count=8 conv=fsync');
    const program = readFileSync(guestParts?.busybox ?? '').subarray(0, MIB / 2);
    expect(Buffer.from(await faulty.read(8 * MIB, MIB / 2)).equals(program)).toBe(true);
    await guest.ok(`blkdiscard -o ${8 * MIB} -l ${MIB / 4} /dev/vdb`);
    program.fill(0, 0, MIB / 4);
    expect(Buffer.from(await faulty.read(8 * MIB, MIB / 2)).equals(program)).toBe(true);
  });

  test('sees an injected write error as an I/O error, once', async () => {
    const rules = blkdebugOf(faulty);
    const write = 'dd if=/dev/zero of=/dev/vdb bs=4k seek=256 count=4 conv=fsync';
    rules.add({ event: 'none', ioTypes: ['write'], errno: 'EIO', range: { offset: MIB, length: 512 }, once: true });
    // Beside it nothing happens.
    await guest.ok('dd if=/dev/zero of=/dev/vdb bs=4k seek=260 count=4 conv=fsync');
    const { status, output } = await guest.run(write);
    expect([status, output]).toEqual([1, expect.stringMatching(/I.* error/)]);
    expect(await guest.ok('dmesg')).toMatch(/I\/O error, dev vdb, sector 2048 op 0x1:\(WRITE\)/);
    await guest.ok(write);
  });

  test('with a flush that fails, stops writing to its file system, which is whole', async () => {
    await guest.ok('/sbin/mke2fs -q -F -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 /dev/vdb');
    await guest.ok('mount -t ext4 -o errors=remount-ro /dev/vdb /mnt/b && echo kept > /mnt/b/kept && sync');
    blkdebugOf(faulty).add({ event: 'none', ioTypes: ['flush'], errno: 'EIO', once: true });
    const { status, output } = await guest.run('dd if=/bin/busybox of=/mnt/b/lost conv=fsync');
    expect([status, output]).toEqual([1, expect.stringContaining('error')]);
    expect((await guest.run('sync; echo more > /mnt/b/more')).output).toContain('Read-only file system');
    // It notes in the file system that there was an error: what e2fsck mends is no reason for alarm.
    expect([0, 1]).toContain((await guest.run('umount /mnt/b; e2fsck -fy /dev/vdb')).status);
    await guest.ok('mount -t ext4 /dev/vdb /mnt/b');
    expect(await guest.ok('cat /mnt/b/kept')).toBe('kept\n');
    await guest.ok('umount /mnt/b');
  });

  test('leaves an image that is whole, with the files in it', async () => {
    await guest.powerOff();
    await serving.close();
    const content = await mirrored.read(0, SIZE);
    await mirrored.close();
    expect(await check(join(folder, 'disk.vdi'))).toMatchObject({
      report: { corruptions: 0, leaks: 0, checkErrors: 0 },
    });
    for (const { device, start, size } of PARTITIONS) {
      const path = join(folder, `part-${start}`);
      writeFileSync(path, content.subarray(start, start + size));
      const { status, stdout } = spawnSync('e2fsck', ['-fn', path], { encoding: 'utf8' });
      expect([device, status, stdout]).toEqual([device, 0, expect.stringContaining('files')]);
    }
  });
});
