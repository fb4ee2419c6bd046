import { randomBytes } from 'node:crypto';
import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Disk } from '../../src/core/disk.ts';
import type { NestedOptions } from '../../src/core/options.ts';
import { bitmaps, open, type ServeOptions, type Serving, serve } from '../../src/node/index.ts';
import { missing, runBeside } from './nbd-programs.ts';

const MIB = 1 << 20;
const SIZE = 64 * MIB;

let folder: string;
let content: Buffer;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-nbd-'));
  content = Buffer.alloc(SIZE);
  randomBytes(8 * MIB).copy(content, 4 * MIB);
  makeDisk('disk.img', content.subarray(4 * MIB, 12 * MIB), 4 * MIB);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A sparse file of the size of all disks here, with some data at a place. */
function makeDisk(name: string, data: Uint8Array = new Uint8Array(0), at = 0): void {
  const file = openSync(join(folder, name), 'w');
  ftruncateSync(file, SIZE);
  writeSync(file, data, 0, data.length, at);
  closeSync(file);
}

const run = (command: string, ...args: string[]) => runBeside(command, args, folder);

/** The output of a program that must succeed. */
async function ok(command: string, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(command, ...args);
  expect([command, ...args, status, status === 0 ? '' : stderr]).toEqual([command, ...args, 0, '']);
  return stdout;
}

interface Setting {
  readonly disk: Disk;
  readonly served: Serving;
  readonly uri: string;
}

async function withServer(
  work: (setting: Setting) => Promise<void>,
  options: ServeOptions = {},
  source: string | NestedOptions = join(folder, 'disk.img'),
): Promise<void> {
  const format = typeof source === 'string' ? { format: 'raw' } : {};
  await using disk = await open(source, { ...format, writable: true });
  await using served = await serve(disk, { name: 'e', socket: join(folder, 's.sock'), ...options });
  await work({ disk, served, uri: served.uri });
}

describe('nbdinfo', () => {
  const note = missing('nbdinfo');
  test.skipIf(note !== '')(`facts, lists, maps, sizes, exit statuses${note}`, async () => {
    await withServer(
      async ({ disk, uri }) => {
        expect(await ok('nbdinfo', uri)).toContain('protocol: newstyle-fixed without TLS, using structured packets');
        const json = JSON.parse(await ok('nbdinfo', '--json', uri));
        expect(json.exports[0]).toMatchObject({ 'export-name': 'e', 'export-size': SIZE, description: 'about e' });
        expect(await ok('nbdinfo', '--list', uri)).toContain('export="e":');
        expect(await ok('nbdinfo', '--size', uri)).toBe(`${SIZE}\n`);
        expect(await ok('nbdinfo', '--map', uri)).toMatch(/hole,zero\n.*data\n.*hole,zero\n/);
        expect(await ok('nbdinfo', '--map', '--totals', uri)).toContain('hole,zero');
        expect(await ok('nbdinfo', '--map=qemu:allocation-depth', uri)).toContain('local');
        expect((await run('nbdinfo', '--is', 'readonly', uri)).status).toBe(2);
        expect((await run('nbdinfo', '--can', 'write', uri)).status).toBe(0);
        await disk.flush();
      },
      { description: 'about e', allocationDepth: true },
    );
  });

  test.skipIf(note !== '')(`dirty bitmaps${note}`, async () => {
    await using disk = await open({ driver: 'memory', size: MIB }, { writable: true });
    await bitmaps(disk).add('b0');
    await disk.write(65536, new Uint8Array(10));
    await using served = await serve(disk, { socket: join(folder, 'b.sock'), bitmaps: ['b0'] });
    const map = await ok('nbdinfo', '--map=qemu:dirty-bitmap:b0', served.uri);
    expect(map.replaceAll(/ +/g, ' ')).toBe(' 0 65536 0 clean\n 65536 65536 1 dirty\n 131072 917504 0 clean\n');
  });
});

describe('nbdsh', () => {
  const note = missing('nbdsh');
  test.skipIf(note !== '')(`what is past the end is refused, and the next command works (N-67)${note}`, async () => {
    await using disk = await open({ driver: 'memory', size: MIB }, { writable: true });
    await using served = await serve(disk, { socket: join(folder, 'sh.sock') });
    const script = [
      'h.set_strict_mode(0)',
      'try: h.pread(512, h.get_size())',
      'except nbd.Error as error: print(error.errno)',
      'h.pwrite(b"new" * 1000, 5, nbd.CMD_FLAG_FUA)',
      'print(h.pread(3000, 5) == b"new" * 1000, h.zero(4096, 4096, nbd.CMD_FLAG_FAST_ZERO), h.flush())',
    ];
    // Its Python is the one that the package belongs to, whichever else there is.
    const path = `PATH=/usr/bin:${process.env.PATH}`;
    const output = await ok('env', path, 'nbdsh', '-u', served.uri, '-c', script.join('\n'));
    expect(output).toBe('EINVAL\nTrue None None\n');
    expect(served.stats()).toMatchObject({ errors: 1, bytesWritten: 3000 });
  });
});

describe('nbd-client', () => {
  const note = missing('nbd-client');
  test.skipIf(note !== '')(`lists exports${note}`, async () => {
    await withServer(async ({ served }) => {
      expect(await ok('nbd-client', '-l', '-unix', join(folder, 's.sock'))).toMatch(/^Negotiation: \.\.\ne\n/);
      expect(served.stats().errors).toBe(0);
    });
  });
});

describe('nbdcopy', () => {
  const note = missing('nbdcopy');
  test.skipIf(note !== '')(`from, to, and into nothing${note}`, async () => {
    await withServer(async ({ uri }) => {
      await ok('nbdcopy', '--connections=4', uri, 'copy.img');
      expect(readFileSync(join(folder, 'copy.img')).equals(content)).toBe(true);
      await ok('nbdcopy', 'disk.img', uri);
      await ok('nbdcopy', uri, 'null:');
    });
    expect(readFileSync(join(folder, 'disk.img')).equals(content)).toBe(true);
  });

  test.skipIf(note !== '')(`into a VDI, which then has the content${note}`, async () => {
    const { create } = await import('../../src/node/index.ts');
    const path = join(folder, 'copied.vdi');
    await create(path, { size: SIZE });
    await using disk = await open(path, { writable: true });
    {
      await using served = await serve(disk, { socket: join(folder, 'v.sock') });
      await ok('nbdcopy', 'disk.img', served.uri);
    }
    expect(Buffer.from(await disk.read(0, SIZE)).equals(content)).toBe(true);
  });
});

describe('QEMU', () => {
  const note = missing('qemu-img', 'qemu-io', 'qemu-nbd');
  test.skipIf(note !== '')(`qemu-img info, map, convert, compare, bench${note}`, async () => {
    await withServer(async ({ uri }) => {
      expect(await ok('qemu-img', 'info', uri)).toContain('virtual size: 64 MiB');
      const map = JSON.parse(await ok('qemu-img', 'map', '--output=json', uri)) as { start: number; data: boolean }[];
      expect(map.map(({ start, data }) => [start, data])).toEqual([
        [0, false],
        [4 * MIB, true],
        [12 * MIB, false],
      ]);
      makeDisk('target.img');
      await ok('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', uri, 'target.img');
      expect(readFileSync(join(folder, 'target.img')).equals(content)).toBe(true);
      await ok('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', 'target.img', uri);
      expect(await ok('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', uri, 'disk.img', '-U')).toContain('identical');
      await ok('qemu-img', 'bench', '-c', '1000', '-d', '16', '-f', 'raw', uri);
    });
  });

  test.skipIf(note !== '')(`qemu-io writes, zeroes, discards, flushes; then reads${note}`, async () => {
    await withServer(
      async ({ uri, served }) => {
        const commands = [
          'write -P 7 0 1M',
          'write -f -z -u 64k 64k',
          'discard 512k 64k',
          'flush',
          'read -P 0 64k 64k',
          'read -P 7 0 64k',
        ];
        const output = await ok('qemu-io', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri);
        expect(output).not.toMatch(/failed|error/i);
        expect(served.stats()).toMatchObject({ errors: 0, bytesWritten: MIB });
      },
      {},
      { driver: 'memory', size: 4 * MIB },
    );
  });

  test.skipIf(note !== '')(`qemu-nbd -L (N-118)${note}`, async () => {
    await withServer(
      async () => {
        expect(await ok('qemu-nbd', '-L', '-k', join(folder, 's.sock'))).toBe(`exports available: 1
 export: 'e'
  description: my description
  size:  67108864
  flags: 0xded ( flush fua trim zeroes df multi cache fast-zero )
  min block: 1
  opt block: 4096
  max block: 33554432
  available meta contexts: 1
   base:allocation
`);
      },
      { description: 'my description' },
    );
  });

  test.skipIf(note !== '')(`an injected error: the client sees EIO and goes on (N-54)${note}`, async () => {
    const tree = {
      driver: 'blkdebug',
      'inject-error': [{ event: 'none', iotype: 'read', errno: 5, sector: 8 }],
      image: { driver: 'memory', size: MIB },
    };
    await withServer(
      async ({ uri, served }) => {
        const { stdout } = await run('qemu-io', '-f', 'raw', '-c', 'read 0 64k', '-c', 'read 64k 64k', uri);
        expect(stdout).toContain('read failed: Input/output error');
        expect(stdout).toContain('read 65536/65536 bytes at offset 65536');
        expect(served.stats()).toMatchObject({ connectionsEver: 1 });
      },
      {},
      tree,
    );
  });

  test.skipIf(note !== '')(`two sides that differ: the client sees EIO, the server lives (BV-17)${note}`, async () => {
    const tree = {
      driver: 'blkverify',
      test: { driver: 'memory', size: MIB },
      raw: { driver: 'raw', file: { driver: 'memory', size: MIB } },
    };
    await using disk = await open(tree, { writable: true });
    const side = disk.node.child('raw')?.node ?? disk.node.child('test')?.node;
    await side?.child('file')?.node.impl.write?.(4096, new Uint8Array(512).fill(9), {});
    await using served = await serve(disk, { socket: join(folder, 'verify.sock') });
    const { stdout } = await run('qemu-io', '-f', 'raw', '-c', 'read 0 64k', '-c', 'read 128k 64k', served.uri);
    expect(stdout).toContain('read failed: Input/output error');
    expect(stdout).toContain('read 65536/65536 bytes at offset 131072');
  });
});

describe('others', () => {
  const fuse = missing('nbdfuse', 'fusermount3');
  test.skipIf(fuse !== '')(`nbdfuse${fuse}`, async () => {
    await withServer(async ({ uri }) => {
      const mount = join(folder, 'mnt');
      mkdirSync(mount);
      const child = runBeside('nbdfuse', [mount, uri], folder);
      try {
        const { status } = await run(
          'sh',
          '-c',
          `for i in $(seq 100); do [ -e mnt/nbd ] && break; sleep 0.05; done; cmp mnt/nbd disk.img`,
        );
        expect(status).toBe(0);
      } finally {
        await run('fusermount3', '-u', mount);
        await child;
      }
    });
  });

  const fio = missing('fio');
  test.skipIf(fio !== '')(`fio: random reads and writes, verified${fio}`, async () => {
    await withServer(
      async ({ uri, served }) => {
        const output = await ok(
          'fio',
          '--name=x',
          '--ioengine=nbd',
          `--uri=${uri}`,
          '--rw=randrw',
          '--bs=4k',
          '--iodepth=16',
          '--size=8M',
          '--verify=crc32c',
        );
        expect(output).toContain('fio: connected to NBD server');
        expect(output).toMatch(/err= 0/);
        expect(served.stats().errors).toBe(0);
      },
      {},
      { driver: 'memory', size: 8 * MIB },
    );
  });

  const kit = missing('nbdkit', 'nbdinfo');
  test.skipIf(kit !== '')(`nbdkit in front, with filters${kit}`, async () => {
    await withServer(async ({ uri }) => {
      const through = (...words: string[]) => run('nbdkit', '-U', '-', ...words, '--run', 'nbdinfo --size "$uri"');
      expect((await through('--filter=cow', '--filter=delay', 'nbd', `uri=${uri}`, 'rdelay=1ms')).stdout).toBe(
        `${SIZE}\n`,
      );
      expect((await through('--filter=blocksize', 'nbd', `uri=${uri}`, 'minblock=4k')).stdout).toBe(`${SIZE}\n`);
      const failing = await run(
        'nbdkit',
        '-U',
        '-',
        '--filter=error',
        'nbd',
        `uri=${uri}`,
        'error-pread=EIO',
        'error-pread-rate=100%',
        '--run',
        'nbdcopy "$uri" null:',
      );
      expect(failing.status).not.toBe(0);
    });
  });
});
