/** A Linux guest whose disk's server is killed, or restarted, while it writes (N-73, N-81, N-113). */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { check, convert, create } from '../../src/node/index.ts';
import { linkProgram } from '../interop/cli-programs.ts';
import { start, stop } from '../interop/nbd-programs.ts';
import { Guest } from './guest.ts';
import { guestNote } from './parts.ts';

const MIB = 1 << 20;
const SIZE = 64 * MIB;

let folder: string;
let server: ChildProcess;
let guest: Guest | undefined;
let ours: string;

const socket = () => join(folder, 'nbd.sock');
const image = () => join(folder, 'disk.vdi');

/** Our server as a program of its own; resolves when it takes connections. */
async function startServer(): Promise<void> {
  const args = ['serve', '--socket', socket(), '--name', 'disk', image()];
  server = start(ours, args, folder);
  // It prints where clients find the image.
  if (server.stdout !== null) await once(server.stdout, 'data');
}

/** What e2fsck says of the disk after it has replayed the journal, and one file's sum. */
async function fileOnDisk(path: string): Promise<{ readonly fsck: number | null; readonly sum: string }> {
  const raw = join(folder, 'disk.img');
  await convert(image(), raw, { targetFormat: 'raw' });
  spawnSync('e2fsck', ['-fy', raw]);
  const { status } = spawnSync('e2fsck', ['-fn', raw]);
  spawnSync('debugfs', ['-R', `dump ${path} ${join(folder, 'out')}`, raw]);
  const { stdout } = spawnSync('sha256sum', [join(folder, 'out')], { encoding: 'utf8' });
  return { fsck: status, sum: stdout.slice(0, 64) };
}

describe.skipIf(guestNote !== '')(`a Linux guest and the end of its server${guestNote}`, () => {
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'diskwright-loss-'));
    ours = join(folder, 'diskwright');
    await linkProgram('diskwright', ours);
    await create(image(), { size: SIZE });
    await startServer();
  });
  afterEach(async () => {
    await guest?.kill();
    guest = undefined;
    await stop(server, 'SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });

  test('killed: what the guest had synced is in the image', async () => {
    guest = await Guest.boot(folder, [{ socket: socket(), export: 'disk' }]);
    await guest.ok('/sbin/mke2fs -q -F -t ext4 /dev/vda && mount -t ext4 /dev/vda /mnt/a');
    await guest.ok('dd if=/dev/urandom of=/mnt/a/synced bs=64k count=64 && sync');
    const sum = (await guest.ok('sha256sum /mnt/a/synced')).slice(0, 64);
    // It goes on writing, and has got some way.
    guest.send('for i in $(seq 1000); do dd if=/mnt/a/synced of=/mnt/a/more$i; echo "went on"; done');
    await guest.said('went on');
    await stop(server, 'SIGKILL');
    await guest.kill();
    expect(await check(image(), { repair: 'all' })).toMatchObject({ report: { corruptions: 0, leaks: 0 } });
    expect(await fileOnDisk('/synced')).toEqual({ fsck: 0, sum });
  });

  test('restarted: the guest waits, and loses nothing', async () => {
    guest = await Guest.boot(folder, [{ socket: socket(), export: 'disk', reconnectDelay: 60 }]);
    await guest.ok('/sbin/mke2fs -q -F -t ext4 /dev/vda && mount -t ext4 /dev/vda /mnt/a');
    guest.send('dd if=/dev/urandom of=/mnt/a/file bs=64k count=32; echo began; sync; sha256sum /mnt/a/file');
    await guest.said('began');
    expect(await stop(server, 'SIGTERM')).toBe(0);
    await startServer();
    const { status, output } = await guest.ended();
    expect([status, output]).toEqual([0, expect.stringMatching(/[0-9a-f]{64} /)]);
    const sum = /([0-9a-f]{64}) /.exec(output)?.[1];
    expect(await guest.ok('dmesg')).not.toContain('I/O error');
    await guest.ok('umount /mnt/a && e2fsck -fn /dev/vda');
    await guest.powerOff();
    expect(await stop(server, 'SIGTERM')).toBe(0);
    expect(await check(image())).toMatchObject({ report: { corruptions: 0, leaks: 0 } });
    expect(await fileOnDisk('/file')).toEqual({ fsck: 0, sum });
  });
});
