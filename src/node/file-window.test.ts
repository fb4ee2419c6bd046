import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FileWindow } from './file-window.ts';
import { type SeekTarget, Syscalls } from './syscalls.ts';

const MIB = 1024 * 1024;
const LONGEST = 2 * MIB;
const SHARED_MEMORY = '/dev/shm';
const missing = process.platform !== 'linux' || !fs.existsSync(SHARED_MEMORY);

let folder = '';
const opened: number[] = [];

beforeEach(() => {
  if (!missing) folder = fs.mkdtempSync(path.join(SHARED_MEMORY, 'diskwright-'));
});
afterEach(() => {
  for (const fd of opened.splice(0)) fs.closeSync(fd);
  if (!missing) fs.rmSync(folder, { recursive: true });
});

/** A sparse file. */
function sparse(size: number, where = folder, flags = 'r+'): number {
  const name = path.join(where, `file-${opened.length}`);
  fs.writeFileSync(name, '');
  fs.truncateSync(name, size);
  const fd = fs.openSync(name, flags);
  opened.push(fd);
  return fd;
}

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 8) + seed) & 0xff);
}

const silent = () => {};

/** Takes every file for a long one, as it was before somebody cut it short. */
class LateSyscalls extends Syscalls {
  override seek(fd: number, to: SeekTarget, offset: number): number {
    return to === 'end' ? Number.MAX_SAFE_INTEGER : super.seek(fd, to, offset);
  }
}

describe.skipIf(missing)('a window on a file', () => {
  test('writes where it is told to, across its steps too, and nothing else gets storage', () => {
    const fd = sparse(100 * MIB);
    const window = new FileWindow(fd, LONGEST, new Syscalls(silent));
    const expected = Buffer.alloc(100 * MIB);
    const places = [40 * MIB + 512, 7 * MIB, 8 * MIB - 4096, 0, 98 * MIB, 40 * MIB + 70_000];
    for (const [index, place] of places.entries()) {
      const bytes = pattern(index % 2 === 0 ? LONGEST : 65_537, index);
      expect(window.write(place, bytes)).toBe(true);
      expected.set(bytes, place);
    }
    window.close();
    const found = Buffer.alloc(100 * MIB);
    expect(fs.readSync(fd, found, 0, found.length, 0)).toBe(found.length);
    expect(found.equals(expected)).toBe(true);
    expect(fs.fstatSync(fd).blocks).toBeLessThan((10 * MIB) / 512);
  });

  test('makes no file longer', () => {
    const fd = sparse(4 * MIB);
    const window = new FileWindow(fd, LONGEST, new Syscalls(silent));
    expect(window.write(3 * MIB, pattern(MIB + 1, 1))).toBe(false);
    expect(window.write(3 * MIB, pattern(MIB, 1))).toBe(true);
    expect(fs.fstatSync(fd).size).toBe(4 * MIB);
    window.close();
  });

  test('leaves to others what it has no means for', () => {
    const bytes = pattern(MIB, 1);
    const noKoffi = new Syscalls(silent, () => {
      throw new Error('not installed');
    });
    expect(new FileWindow(sparse(4 * MIB), LONGEST, noKoffi).write(0, bytes)).toBe(false);
    expect(new FileWindow(sparse(4 * MIB, folder, 'r'), LONGEST, new Syscalls(silent)).write(0, bytes)).toBe(false);
    expect(new FileWindow(sparse(4 * MIB), LONGEST, new Syscalls(silent)).write(0, pattern(4096, 1))).toBe(false);
    expect(new FileWindow(sparse(4 * MIB), MIB - 1, new Syscalls(silent)).write(0, bytes)).toBe(false);
  });

  test.each([0, MIB])('outlives a file that is cut to %i bytes under it', (size) => {
    const fd = sparse(size);
    const window = new FileWindow(fd, LONGEST, new LateSyscalls(silent));
    expect(window.write(MIB / 2, pattern(MIB, 1))).toBe(false);
    expect(fs.fstatSync(fd).size).toBe(size);
    window.close();
  });

  test('outlives a file system without room (skipped where none can be mounted)', (context) => {
    const point = path.join(folder, 'small');
    fs.mkdirSync(point);
    const made = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${4 * MIB}`, 'tmpfs', point], { encoding: 'utf8' });
    if (made.status !== 0) context.skip(`cannot mount: ${made.error?.message ?? made.stderr.trim()}`);
    const fd = sparse(100 * MIB, point);
    try {
      const window = new FileWindow(fd, LONGEST, new Syscalls(silent));
      expect([0, 2, 4].map((place) => window.write(place * MIB, pattern(LONGEST, place)))).toEqual([true, true, false]);
      window.close();
      expect(fs.fstatSync(fd).size).toBe(100 * MIB);
    } finally {
      fs.closeSync(opened.pop() ?? -1);
      spawnSync('umount', [point]);
    }
  });
});
