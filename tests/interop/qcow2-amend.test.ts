/** T-AMEND-1, Q-AM-1 to Q-AM-4: amend beside qemu-img's, in what both print and in what becomes of images. */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Graph } from '../../src/core/graph.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { DEFAULT_OPEN_POLICY } from '../../src/core/policy.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { nodeHost } from '../../src/node/host.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { SeededRandom } from '../../src/testing/index.ts';
import { testSeed } from '../set-up/seed.ts';
import { wordsOf } from './cli-cases.ts';
import { type Outcome, peerMissing, SideBySide, withoutChildren, withoutStorage } from './cli-programs.ts';
import { qemuImg, qemuImgOk, qemuIo } from './peer.ts';

const note = peerMissing ? ` (${peerMissing})` : '';

const LINES = [
  'amend',
  'amend a.qcow2',
  'amend -o size=2M',
  'amend -p -o size=2M',
  'amend -o size=2M a.qcow2 b.qcow2',
  'amend -o help',
  'amend -o help a.qcow2',
  'amend -f qcow2 -o help',
  'amend -f qcow2 -o ?,zork x y z',
  'amend -f raw -o help a.qcow2',
  'amend -f zork -o help a.qcow2',
  'amend -o help nope',
  'amend -f raw -o size=2M r5.raw',
  'amend -f zork -o size=2M a.qcow2',
  'amend -o size=2M v10.vdi',
  'amend -o size=2M nope',
  'amend -p -o size=2M nope',
  'amend -t zork -o size=2M a.qcow2',
  'amend -t zork -f qcow2 -o help a.qcow2',
  'amend -U -o size=2M a.qcow2',
  'amend --format qcow2 -o size=2M a.qcow2',
  'amend -o ,size a.qcow2',
  "amend -o '' a.qcow2",
  'amend --object zork -o size=2M a.qcow2',
  'amend --image-opts -f qcow2 -o size=2M driver=qcow2,file.filename=a.qcow2',
  'amend -o foo=1 a.qcow2',
  'amend -p -o foo=1 a.qcow2',
  'amend -o cluster_size=4k,foo=1 a.qcow2',
  'amend -o foo=1,cluster_size=4k a.qcow2',
  'amend -o encrypt.format=luks a.qcow2',
  'amend -o encrypt.keyslot=x a.qcow2',
  'amend -o encrypt.state=active,compat=2 a.qcow2',
  'amend -o size=x a.qcow2',
  'amend -o size=16E a.qcow2',
  'amend -o size=9E a.qcow2',
  'amend -o size=1000 a.qcow2',
  'amend -p -o size=1000 a.qcow2',
  'amend -o refcount_bits=x a.qcow2',
  'amend -o refcount_bits=3,size=1000 a.qcow2',
  'amend -o compat=2,refcount_bits=3 a.qcow2',
  'amend -o backing_file=x,size=1000 a.qcow2',
  'amend -o backing_fmt=raw over.qcow2',
  'amend -o backing_file=r5.raw over.qcow2',
  'amend -o backing_file=r5.raw,backing_fmt=raw over.qcow2',
  'amend -o data_file=x,refcount_bits=3 a.qcow2',
  'amend -o data_file_raw=on,refcount_bits=3 a.qcow2',
  'amend -o compat=0.10,refcount_bits=8,lazy_refcounts=on a.qcow2',
  'amend -o compat=0.10,lazy_refcounts=on,size=1000 a.qcow2',
  'amend -p -o size=3M a.qcow2',
  'amend -o size=2M -o lazy_refcounts a.qcow2',
  '≈info a.qcow2',
  'amend -q -p -o nolazy_refcounts,size=1M a.qcow2',
  'amend -o compat=v2 a.qcow2',
  '≈info a.qcow2',
  'amend -o lazy_refcounts=on a.qcow2',
  'amend -o refcount_bits=16,compat=0.10 a.qcow2',
  'amend -o refcount_bits=64,compat=1.1 a.qcow2',
  'amend -o compat=0.10 a.qcow2',
  '≈info a.qcow2',
  'amend -o compat=0.10 sub.qcow2',
  'amend -o data_file=elsewhere.raw,data_file_raw=off raw.qcow2',
  'info raw.qcow2',
  'amend -o data_file_raw=on raw.qcow2',
  'amend -o refcount_bits=1 snap.qcow2',
  'amend -o compat=0.10 snap.qcow2',
  'amend -o size=2M snap.qcow2',
  'amend -o compat=1.1,size=2M snap.qcow2',
  'amend -o compat=0.10 snap.qcow2',
  'check snap.qcow2',
  'amend -o compat=0.10 packed.qcow2',
  'amend -o compat=0.10 over.qcow2',
  'map --output=json over.qcow2',
  'check over.qcow2',
];

describe.skipIf(peerMissing !== undefined)(`amend prints what qemu-img prints${note}`, () => {
  let pair: SideBySide;
  beforeAll(async () => {
    pair = await SideBySide.make();
    const image = (...args: string[]) => pair.prepare('qemu-img', ...args);
    const create = (...args: string[]) => image('create', '-q', '-f', 'qcow2', ...args);
    image('create', '-q', '-f', 'raw', 'r5.raw', '5M');
    image('create', '-q', '-f', 'vdi', 'v10.vdi', '10M');
    create('a.qcow2', '1M');
    create('-b', 'r5.raw', '-F', 'raw', 'over.qcow2');
    pair.prepare('qemu-io', '-f', 'qcow2', '-c', 'write -z 64k 64k', '-c', 'write 1M 64k', 'over.qcow2');
    create('-o', 'extended_l2=on', 'sub.qcow2', '1M');
    create('-o', 'data_file=data.raw,data_file_raw=on', 'raw.qcow2', '1M');
    for (const folder of [pair.ours, pair.theirs])
      copyFileSync(join(folder, 'data.raw'), join(folder, 'elsewhere.raw'));
    create('snap.qcow2', '1M');
    pair.prepare('qemu-io', '-f', 'qcow2', '-c', 'write 0 128k', 'snap.qcow2');
    image('snapshot', '-c', 's1', 'snap.qcow2');
    create('-o', 'compression_type=zstd', 'packed.qcow2', '1M');
    pair.prepare('qemu-io', '-f', 'qcow2', '-c', 'write -c 0 64k', 'packed.qcow2');
  });
  afterAll(() => pair?.remove());

  for (const [number, line] of LINES.entries()) {
    test(`${number}: qemu-img ${line}`, async () => {
      const theirs = pair.runTheirs(wordsOf(line));
      const ours = await pair.runOursHere(wordsOf(line));
      const view = line.startsWith('≈') ? withoutStorage : (outcome: Outcome) => outcome;
      expect(view(/^≈?info/.test(line) ? withoutChildren(ours) : ours)).toEqual(view(theirs));
    });
  }
});

const SIZE = 1536 * 1024;

interface Plan {
  readonly make: OptionTree;
  readonly amend: readonly OptionTree[];
}

/** Every two of: how it is made, what is changed. */
const PLANS: readonly Plan[] = [
  { make: { cluster_size: 512 }, amend: [{ refcount_bits: 64 }, { refcount_bits: 16, compat: '0.10' }] },
  {
    make: { cluster_size: 512, refcount_bits: 1 },
    amend: [{ refcount_bits: 8, size: '3M' }, { lazy_refcounts: 'on' }],
  },
  { make: { cluster_size: 4096, compat: '0.10' }, amend: [{ compat: '1.1', refcount_bits: 2, lazy_refcounts: 'on' }] },
  { make: { cluster_size: 65536, lazy_refcounts: 'on' }, amend: [{ compat: '0.10' }, { compat: '1.1' }] },
  { make: { cluster_size: 65536, refcount_bits: 64 }, amend: [{ refcount_bits: 16, compat: '0.10', size: '5M' }] },
  { make: { cluster_size: 16384, extended_l2: 'on' }, amend: [{ refcount_bits: 4, size: '512k' }] },
  { make: { cluster_size: 65536, compression_type: 'zstd' }, amend: [{ compat: '0.10' }, { size: '1M' }] },
  { make: { cluster_size: 4096, backing_file: 'base.raw', backing_fmt: 'raw' }, amend: [{ compat: '0.10' }] },
  {
    make: { cluster_size: 512, backing_file: 'base.raw', backing_fmt: 'raw', compat: '0.10' },
    amend: [{ compat: '1.1', size: '2M' }],
  },
  {
    make: { cluster_size: 65536, data_file: 'DATA' },
    amend: [{ refcount_bits: 32, lazy_refcounts: 'on', size: '2M' }],
  },
  {
    make: { cluster_size: 65536, preallocation: 'metadata' },
    amend: [{ compat: '0.10' }, { compat: '1.1', refcount_bits: 1 }],
  },
];

describe.skipIf(peerMissing !== undefined)(`images changed by one and used by the other${note}`, () => {
  let folder: string;
  const base = operationData(17, 1 << 20);
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'diskwright-amend-'));
    writeFileSync(join(folder, 'base.raw'), base);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const open = (path: string, writable: boolean) =>
    new Graph({ host: nodeHost(), drivers: DRIVERS, openPolicy: DEFAULT_OPEN_POLICY }).open(path, {
      format: 'qcow2',
      writable,
    });

  const text = (options: OptionTree, number: string) =>
    Object.entries(options)
      .map(([key, value]) => `${key}=${value === 'DATA' ? join(folder, `${number}.data`) : value}`)
      .join(',');

  /** An image with data and zeroes in it, and what its disk holds. */
  function make(make: OptionTree, number: string, seed: number): { path: string; content: Uint8Array } {
    const path = join(folder, `${number}.qcow2`);
    qemuImgOk('create', '-q', '-f', 'qcow2', '-o', text(make, number), path, String(SIZE));
    const content = new Uint8Array(SIZE);
    if (make.backing_file !== undefined) content.set(base);
    const random = new SeededRandom(seed);
    const commands = Array.from({ length: 12 }, (_, i) => {
      const offset = random.below(SIZE / 512 - 1) * 512;
      const length = Math.min(SIZE - offset, random.between(1, 400) * 512);
      content.fill(i % 3 === 2 ? 0 : i + 1, offset, offset + length);
      if (i % 3 === 2) return `write -z${i % 2 === 0 ? ' -u' : ''} ${offset} ${length}`;
      return `write -P ${i + 1} ${offset} ${length}`;
    });
    qemuIo('qcow2', path, commands);
    return { path, content };
  }

  function resized(content: Uint8Array, size: number): Uint8Array {
    const next = new Uint8Array(size);
    next.set(content.subarray(0, size));
    return next;
  }

  async function expectSame(path: string, content: Uint8Array): Promise<void> {
    const disk = await open(path, false);
    const expected = resized(content, disk.length);
    expect(differsAt(await disk.read(0, disk.length), expected)).toBe(-1);
    const report = await disk.check({ repair: 'none', finding: () => {} });
    expect([report.corruptions, report.leaks, report.checkErrors]).toEqual([0, 0, 0]);
    await disk.close();
    expect(qemuImg('check', '-q', '-f', 'qcow2', path)).toEqual({ status: 0, stdout: '', stderr: '' });
    const raw = `${path}.raw`;
    qemuImgOk('convert', '-f', 'qcow2', '-O', 'raw', path, raw);
    expect(differsAt(readFileSync(raw), expected)).toBe(-1);
  }

  for (const [number, plan] of PLANS.entries()) {
    const title = `${JSON.stringify(plan.make)}, then ${JSON.stringify(plan.amend)}`;
    test(`changed by us: ${title}`, async () => {
      const { path, content } = make(plan.make, `ours-${number}`, testSeed + number);
      let expected = content;
      for (const options of plan.amend) {
        const disk = await open(path, true);
        await disk.amend(options);
        expected = resized(expected, disk.length);
        expected.fill(77, 4000, 70_000);
        await disk.write(4000, new Uint8Array(66_000).fill(77));
        await disk.close();
        expect(qemuImg('check', '-q', '-f', 'qcow2', path)).toEqual({ status: 0, stdout: '', stderr: '' });
      }
      qemuIo('qcow2', path, ['write -P 99 100k 200k']);
      expected.fill(99, 100 << 10, 300 << 10);
      await expectSame(path, expected);
    });

    test(`changed by qemu-img: ${title}`, async () => {
      const { path, content } = make(plan.make, `theirs-${number}`, testSeed + number + 50);
      for (const options of plan.amend) qemuImgOk('amend', '-f', 'qcow2', '-o', text(options, ''), path);
      const disk = await open(path, true);
      const expected = resized(content, disk.length);
      expected.fill(5, 1000, 200_000);
      await disk.write(1000, new Uint8Array(199_000).fill(5));
      await disk.close();
      await expectSame(path, expected);
    });
  }
});
