/** The file protocol on this machine's own files: the driver contract, and beside qemu-img and qemu-io. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import { BlockError } from '../../src/core/errors.ts';
import { Graph } from '../../src/core/graph.ts';
import type { NestedOptions, OptionTree } from '../../src/core/options.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { type NodeHostOptions, nodeHost } from '../../src/node/host.ts';
import { type ContractSubject, driverContract } from '../../src/testing/index.ts';
import { inFolder, peersMissing, qemuImg, RunningQemuIo, skipNote } from './peer.ts';

const KIB = 1024;

function graphOf(options: NodeHostOptions = {}): Graph {
  return new Graph({ host: nodeHost({ warn: () => {}, ...options }), drivers: DRIVERS });
}

interface Variant {
  readonly parent?: string;
  readonly host?: NodeHostOptions;
  readonly options?: NestedOptions;
  readonly lengthUnit?: number;
}

const noKoffi = () => {
  throw new Error('not installed');
};

const VARIANTS: Readonly<Record<string, Variant>> = {
  'file in the temporary folder': {},
  'file, threads only': { options: { aio: 'threads' } },
  'file, without system calls': { host: { loadKoffi: noKoffi } },
  'file past the cache': { options: { 'cache.direct': true }, lengthUnit: 4096 },
  ...(fs.existsSync('/dev/shm') && { 'file in memory': { parent: '/dev/shm' } }),
};

function subject(name: string, { parent, host, options, lengthUnit }: Variant): ContractSubject {
  return {
    name,
    blockSize: 4096,
    sequences: 5,
    ...(lengthUnit !== undefined && { lengthUnit }),
    async make(length) {
      const folder = fs.mkdtempSync(join(parent ?? tmpdir(), 'diskwright-contract-'));
      const filename = join(folder, 'disk');
      fs.writeFileSync(filename, '');
      fs.truncateSync(filename, length);
      const graph = graphOf(host);
      return {
        open: (how) => graph.open({ driver: 'file', filename, ...options }, how),
        stored: async (path, offset, size) => fs.readFileSync(path).subarray(offset, offset + size),
        openFiles: () => graph.nodes().map((node) => node.name),
        dispose: async () => fs.rmSync(folder, { recursive: true }),
      };
    },
  };
}

describe.skipIf(process.platform !== 'linux')('driver contract on host files', () => {
  for (const [name, variant] of Object.entries(VARIANTS)) {
    for (const { name: title, run } of driverContract(subject(name, variant))) test(title, run);
  }
});

/** What we say, as qemu-img would print it. */
async function failure(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return error.hint === undefined ? error.message : `${error.message}\n${error.hint}`;
  }
  return '';
}

function said(stderr: string, prefix: string): string {
  expect(stderr.startsWith(prefix), stderr).toBe(true);
  return stderr.slice(prefix.length).trimEnd();
}

describe.skipIf(peersMissing !== undefined)(`messages are those of qemu-img${skipNote}`, () => {
  /** Each on a folder with a file, a folder, a pipe and a link in a circle. */
  const opens: readonly string[] = [
    'driver=file,filename=none',
    'driver=file,filename=none/x',
    'driver=file,filename=file.raw/x',
    'driver=file,filename=folder',
    'driver=file,filename=circle',
    'driver=file,filename=file:file.raw',
    'driver=file,filename=/dev/null',
    'driver=file',
    'driver=file,filename=',
    'driver=file,filename=file.raw,locking=foo',
    'driver=file,filename=file.raw,aio=foo',
    'driver=file,filename=file.raw,aio=native',
    'driver=file,filename=file.raw,drop-cache=foo',
    'driver=file,filename=file.raw,foo=bar',
    'driver=host_device,filename=none',
    'driver=host_device,filename=file.raw',
    'driver=host_device,filename=folder',
    'driver=null-co,filename=foo',
  ];
  test.each(opens)('opening %s', async (options) => {
    await inFolder(async (folder) => {
      fs.writeFileSync(join(folder, 'file.raw'), new Uint8Array(64 * KIB));
      fs.mkdirSync(join(folder, 'folder'));
      fs.symlinkSync('circle', join(folder, 'circle'));
      const inPlace = options.replace(/(filename=)(none|file\.raw|folder|circle)/, `$1${folder}/$2`);
      const peer = qemuImg('info', '--image-opts', inPlace);
      const tree = Object.fromEntries(inPlace.split(',').map((item) => item.split('=')));
      const ours = await failure(
        graphOf()
          .open(tree as OptionTree, { noIO: true })
          .then((disk) => disk.close()),
      );
      expect(ours).toBe(said(peer.stderr, `qemu-img: Could not open '${inPlace}': `));
    });
  });

  const creations: readonly [string, string, OptionTree][] = [
    ['none/x', '1M', {}],
    ['folder', '1M', {}],
    ['file.raw/x', '1M', {}],
    ['new.raw', '1M', { preallocation: 'metadata' }],
    ['new.raw', '1M', { preallocation: 'foo' }],
    ['new.raw', '1M', { extent_size_hint: '4G' }],
    ['new.raw', '7E', {}],
  ];
  test.each(creations)('making %s of %s with %j', async (name, size, options) => {
    await inFolder(async (folder) => {
      fs.writeFileSync(join(folder, 'file.raw'), '');
      fs.mkdirSync(join(folder, 'folder'));
      const filename = join(folder, name);
      const words = Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
      const peer = qemuImg('create', '-f', 'raw', ...words, filename, size);
      const asked = { filename, format: 'raw', options: { ...options, size } };
      const lines: string[] = [];
      const ours = await failure(createImage(graphOf(), { ...asked, report: (line) => lines.push(line) }));
      expect(ours).toBe(said(peer.stderr, `qemu-img: ${filename}: `));
      expect(lines.join('\n').trimEnd()).toBe(peer.stdout.trimEnd());
    });
  });

  test('making a file that is in use', async () => {
    await inFolder(async (folder) => {
      const filename = join(folder, 'used.vdi');
      qemuImg('create', '-q', '-f', 'vdi', filename, '1M');
      const before = fs.readFileSync(filename);
      const other = await RunningQemuIo.open('vdi', filename);
      const peer = qemuImg('create', '-f', 'raw', filename, '1M');
      const error = await createImage(graphOf(), { filename, format: 'raw', size: KIB * KIB }).catch((it) => it);
      expect(`${error.message}\n${error.hint}`).toBe(said(peer.stderr, `qemu-img: ${filename}: `));
      expect(error.holder).toMatch(/^It is used by qemu-io \(process \d+\)\.$/);
      await other.close();
      expect(fs.readFileSync(filename).equals(before)).toBe(true);
    });
  });
});

describe.skipIf(peersMissing !== undefined)(`on a block device (skipped where none can be made)${skipNote}`, () => {
  test('an image is made, written, and the same to qemu-img', async (context) => {
    await inFolder(async (folder) => {
      const backing = join(folder, 'backing');
      fs.writeFileSync(backing, new Uint8Array(16 * KIB * KIB).fill(7));
      const made = spawnSync('losetup', ['--find', '--show', backing], { encoding: 'utf8' });
      if (made.status !== 0) return context.skip('no permission to make a loop device');
      const filename = made.stdout.trim();
      try {
        const graph = graphOf();
        await createImage(graph, { filename, format: 'vdi', size: 8 * KIB * KIB });
        const disk = await graph.open(filename, { format: 'vdi', writable: true });
        expect(graph.nodes().map((node) => node.driver.name)).toContain('host_device');
        const data = new Uint8Array(100 * KIB).fill(9);
        await disk.write(1000 * KIB + 100, data);
        await disk.writeZeroes(1010 * KIB, 4096, { unmap: true });
        await disk.close();
        const plain = new Uint8Array(8 * KIB * KIB);
        plain.set(data, 1000 * KIB + 100);
        plain.fill(0, 1010 * KIB, 1014 * KIB);
        fs.writeFileSync(join(folder, 'plain'), plain);
        const compared = qemuImg('compare', '-f', 'vdi', '-F', 'raw', filename, join(folder, 'plain'));
        expect(compared).toMatchObject({ status: 0, stdout: 'Images are identical.\n' });
        expect(qemuImg('check', '-f', 'vdi', filename).status).toBe(0);
      } finally {
        spawnSync('losetup', ['--detach', filename]);
      }
    });
  });
});

/** An empty file system of its own kind over a file; undefined where we may not mount one. */
function mounted(folder: string, type: string): string | undefined {
  const image = join(folder, 'image');
  const point = join(folder, 'mnt');
  fs.mkdirSync(point);
  fs.writeFileSync(image, '');
  fs.truncateSync(image, 400 * KIB * KIB);
  const run = (program: string, ...words: string[]) => spawnSync(program, words).status === 0;
  return run(`mkfs.${type}`, image) && run('mount', '-o', 'loop', image, point) ? point : undefined;
}

describe.each(['xfs', 'btrfs', 'ext4'])('on %s (skipped where it cannot be mounted)', (type) => {
  test('files are sized, zeroed, copied, read and written at once', async (context) => {
    await inFolder(async (folder) => {
      const point = mounted(folder, type);
      if (point === undefined) return context.skip(`cannot make and mount ${type}`);
      try {
        await exercise(join(point, 'disk'), type);
      } finally {
        spawnSync('umount', [point]);
      }
    });
  });
});

async function exercise(filename: string, type: string): Promise<void> {
  const graph = graphOf();
  const options = { preallocation: 'falloc', nocow: 'on' };
  await createImage(graph, { filename, format: 'raw', size: 1024 * KIB, options });
  await using disk = await graph.open({ driver: 'file', filename }, { writable: true });
  expect(disk.allocatedSize()).toBe(1024 * KIB);
  const hint = type === 'xfs' ? { 'extent-size-hint': KIB * KIB } : {};
  expect(disk.info().specific).toEqual({ type: 'file', data: hint });
  const data = new Uint8Array(64 * KIB).fill(7);
  expect(disk.tryWriteNow(0, data)).toBe(true);
  await disk.writeZeroes(16 * KIB, 16 * KIB);
  await disk.writeZeroes(32 * KIB, 16 * KIB, { unmap: true });
  const target = new Uint8Array(64 * KIB);
  expect(disk.tryReadNow(0, target)).toBe(true);
  expect(target.indexOf(0)).toBe(16 * KIB);
  expect(target.lastIndexOf(0)).toBe(48 * KIB - 1);
  await disk.discard(0, 1024 * KIB);
  expect(disk.allocatedSize()).toBe(0);
}
