/** `diskwright mount`: an image as a file, through nbdfuse. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { checksum, create } from '../../src/node/index.ts';
import { linkProgram } from './cli-programs.ts';
import { missing, run, start } from './nbd-programs.ts';

const MIB = 1 << 20;
let folder: string;
let diskwright: string;
let mounts = 0;
let point: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-mount-'));
  diskwright = join(folder, 'diskwright');
  await linkProgram('diskwright', diskwright);
});
beforeEach(() => {
  point = join(folder, `mnt${mounts++}`);
  mkdirSync(point);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function fuseMissing(): string {
  const absent = missing('nbdfuse', 'fusermount3');
  if (absent !== '') return absent;
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return '';
  } catch {
    return ' (skipped: /dev/fuse cannot be used)';
  }
}

/** Starts it, and resolves with the name that it prints when the file is there. */
async function mounted(...args: string[]) {
  const child = start(diskwright, ['mount', ...args], folder);
  let [stdout, stderr] = ['', ''];
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const exited = once(child, 'close').then(([status, signal]) => ({ status, signal, stderr }));
  await new Promise<void>((resolve) => {
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      if (stdout.includes('\n')) resolve();
    });
    void exited.then(() => resolve());
  });
  return { child, file: stdout.trimEnd(), exited };
}

const absent = fuseMissing();

describe.skipIf(absent !== '')(`through FUSE${absent}`, () => {
  test.each(['SIGINT', 'SIGTERM'] as const)('what is written is in the image after %s', async (signal) => {
    const image = join(folder, `${signal}.vdi`);
    await create(image, { format: 'vdi', size: 8 * MIB });
    const { child, file, exited } = await mounted(image, point);
    expect(file).toBe(join(point, `${signal}.raw`));
    const data = randomBytes(100_000);
    const descriptor = openSync(file, 'r+');
    writeSync(descriptor, data, 0, data.length, 3 * MIB + 5);
    fsyncSync(descriptor);
    closeSync(descriptor);
    expect(readFileSync(file)).toHaveLength(8 * MIB);
    child.kill(signal);
    expect(await exited).toEqual({ status: 0, signal: null, stderr: '' });
    expect(readdirSync(point)).toEqual([]);
    const plain = Buffer.alloc(8 * MIB);
    data.copy(plain, 3 * MIB + 5);
    writeFileSync(join(folder, 'plain.raw'), plain);
    expect(await checksum(image)).toEqual(await checksum(join(folder, 'plain.raw'), { format: 'raw' }));
  });

  test('ends when it is unmounted by hand; read-only, under a name', async () => {
    const image = join(folder, 'ro.raw');
    writeFileSync(image, randomBytes(MIB));
    const { file, exited } = await mounted('-f', 'raw', '-r', '--name', 'disk', image, point);
    expect(file).toBe(join(point, 'disk'));
    expect(Buffer.compare(readFileSync(file), readFileSync(image))).toBe(0);
    expect(() => openSync(file, 'r+')).toThrow();
    // The system may take a moment to let go of a file that was just closed.
    while (spawnSync('fusermount3', ['-u', point]).status !== 0) await new Promise(setImmediate);
    expect(await exited).toMatchObject({ status: 0, stderr: '' });
  });

  test('in use at the end: goes when it no longer is', async () => {
    const image = join(folder, 'busy.raw');
    writeFileSync(image, randomBytes(MIB));
    const { child, file, exited } = await mounted('-f', 'raw', image, point);
    const descriptor = openSync(file, 'r+');
    const gone = once(child.stderr ?? child, 'data');
    child.kill('SIGINT');
    expect(String(await gone)).toContain(`'${point}' is in use: it goes when nobody uses it any more`);
    writeSync(descriptor, Buffer.from('still'), 0, 5, 0);
    closeSync(descriptor);
    expect(await exited).toMatchObject({ status: 0 });
    expect(readFileSync(image).subarray(0, 5).toString()).toBe('still');
  });

  test('what is written to a snapshot is dropped', async () => {
    const image = join(folder, 'keep.vdi');
    await create(image, { format: 'vdi', size: MIB });
    const before = readFileSync(image);
    const { child, file, exited } = await mounted('--snapshot', image, point);
    const descriptor = openSync(file, 'r+');
    writeSync(descriptor, Buffer.from('gone'), 0, 4, 0);
    closeSync(descriptor);
    child.kill('SIGINT');
    expect(await exited).toMatchObject({ status: 0 });
    expect(Buffer.compare(readFileSync(image), before)).toBe(0);
  });

  test('options that FUSE does not know', async () => {
    const image = join(folder, 'bad.raw');
    writeFileSync(image, Buffer.alloc(512));
    const { status, stderr } = run(diskwright, ['mount', '-f', 'raw', '-o', 'no_such_option', image, point], folder);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^diskwright: nbdfuse failed: .*no_such_option/s);
  });
});

describe('what is needed is told', () => {
  const image = () => {
    writeFileSync(join(folder, 'x.raw'), Buffer.alloc(512));
    return join(folder, 'x.raw');
  };

  test('nbdfuse', () => {
    const { status, stderr } = spawnSync(process.execPath, [diskwright, 'mount', image(), point], {
      encoding: 'utf8',
      env: { ...process.env, PATH: '/none', NODE_PATH: process.env.NODE_PATH },
    });
    expect([status, stderr]).toEqual([
      1,
      `diskwright: Cannot mount on '${point}': nbdfuse is not installed\nIt comes with libnbd (Debian: libnbd-bin).\n`,
    ]);
  });

  test.skipIf(absent !== '')(`a folder${absent}`, () => {
    for (const [place, reason] of [
      ['none', 'No such file or directory'],
      [image(), 'Not a directory'],
    ] as const) {
      const { status, stderr } = run(diskwright, ['mount', image(), place], folder);
      expect([status, stderr]).toEqual([1, `diskwright: Cannot mount on '${place}': ${reason}\n`]);
    }
  });

  test('a name, and both operands', () => {
    expect(run(diskwright, ['mount', '--name', 'a/b', image(), point], folder).stderr).toBe(
      "diskwright: 'a/b' is no name for a file\n",
    );
    expect(run(diskwright, ['mount', image()], folder).stderr).toMatch(
      /^diskwright: Expecting an image file name and a folder\n/,
    );
  });

  test('nothing is left behind', () => {
    expect(existsSync(point)).toBe(true);
    expect(readdirSync(point)).toEqual([]);
  });
});
