import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { fat16Image } from './fat16.ts';

const folder = mkdtempSync(join(tmpdir(), 'diskwright-fat-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const content = new TextEncoder().encode('all that is written here is read again\n'.repeat(300));
const image = join(folder, 'fat.raw');
writeFileSync(
  image,
  fat16Image(16 << 20, [
    { name: 'README.TXT', content },
    { name: 'EMPTY', content: new Uint8Array(0) },
  ]),
);

const installed = (program: string) => spawnSync(program, ['--version']).error === undefined;

describe('a FAT16 file system of our own', () => {
  test('has its signature, two equal tables and the content behind them', () => {
    const bytes = fat16Image(16 << 20, [{ name: 'A', content: Uint8Array.of(1, 2, 3) }]);
    const view = new DataView(bytes.buffer);
    const fat = view.getUint16(22, true) * 512;
    expect(view.getUint16(510, true)).toBe(0xaa55);
    expect(bytes.subarray(512, 512 + fat)).toEqual(bytes.subarray(512 + fat, 512 + 2 * fat));
    expect(bytes.subarray(512 + 2 * fat + 512 * 32).subarray(0, 3)).toEqual(Uint8Array.of(1, 2, 3));
  });

  test.skipIf(!installed('fsck.fat'))('is clean to fsck.fat (skipped without dosfstools)', () => {
    const run = spawnSync('fsck.fat', ['-n', image], { encoding: 'utf8' });
    expect(run.stdout).toContain('2 files');
    expect(run.status).toBe(0);
  });

  test.skipIf(!installed('mcopy'))('gives mcopy its files back (skipped without mtools)', () => {
    const run = spawnSync('mcopy', ['-n', '-i', image, '::README.TXT', '-']);
    expect(Uint8Array.from(run.stdout)).toEqual(content);
  });
});
