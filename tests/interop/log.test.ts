/** The log filter beside qemu-io's: the same requests leave the same log, byte for byte. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { open } from '../../src/node/index.ts';
import { peersMissing, qemuIo, skipNote } from './peer.ts';

const folder = mkdtempSync(join(tmpdir(), 'diskwright-log-'));
afterAll(() => rmSync(folder, { recursive: true }));

function files(name: string): { disk: string; log: string } {
  const [disk, log] = [join(folder, `${name}.disk`), join(folder, `${name}.log`)];
  writeFileSync(disk, '');
  truncateSync(disk, 1 << 20);
  writeFileSync(log, '');
  return { disk, log };
}

test.skipIf(peersMissing !== undefined)(`the same log as qemu-io writes${skipNote}`, async () => {
  const [ours, theirs] = [files('ours'), files('theirs')];
  const below = (filename: string) => ({ driver: 'file', filename });
  qemuIo('blklogwrites', `json:${JSON.stringify({ file: below(theirs.disk), log: below(theirs.log) })}`, [
    'write -P 1 0 1k',
    'flush',
    'write -z 4k 4k',
    'discard 8k 4k',
    'write -f -P 2 16k 512',
    'write -P 3 100 10',
    'flush',
  ]);
  const disk = await open(
    {
      driver: 'blklogwrites',
      file: { driver: 'file', filename: ours.disk },
      log: { driver: 'file', filename: ours.log },
    },
    { writable: true },
  );
  await disk.write(0, new Uint8Array(1024).fill(1));
  await disk.flush();
  await disk.writeZeroes(4096, 4096);
  await disk.discard(8192, 4096);
  await disk.write(16384, new Uint8Array(512).fill(2), { fua: true });
  await disk.write(100, new Uint8Array(10).fill(3));
  await disk.flush();
  await disk.close();
  expect(readFileSync(ours.log).equals(readFileSync(theirs.log))).toBe(true);
  expect(readFileSync(ours.disk).equals(readFileSync(theirs.disk))).toBe(true);
});
