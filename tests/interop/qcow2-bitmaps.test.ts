/** Bitmaps that qcow2 images keep: commands print what qemu-img prints, and each goes on with what the other has made. */
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bitmaps } from '../../src/bitmaps/bitmaps.ts';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { nodeHost } from '../../src/node/host.ts';
import { wordsOf } from './cli-cases.ts';
import { type Outcome, peerMissing, SideBySide, withoutChildren } from './cli-programs.ts';

/** Run in this order on equal images: `a` has bitmaps, `u` some that a crash has left in use, `v2`, `v` and `r` have none. */
const LINES: readonly string[] = [
  // T-BITMAP-1: the command line.
  'bitmap',
  'bitmap a.qcow2 x',
  'bitmap --add a.qcow2',
  'bitmap --add a.qcow2 x y',
  'bitmap --add -g 1000 a.qcow2 x',
  'bitmap --add -g 256 a.qcow2 x',
  'bitmap --add -g foo a.qcow2 x',
  'bitmap --add -g 4G a.qcow2 x',
  'bitmap --remove -F raw -g 4k a.qcow2',
  'bitmap --remove -F raw a.qcow2',
  'bitmap --remove -F raw -b x a.qcow2',
  'bitmap --add -b a.qcow2 a.qcow2 y',
  'bitmap --frob',
  'bitmap --add -g',
  'bitmap --add nope.qcow2 x',
  'bitmap --image-opts -f qcow2 --add driver=qcow2,file.filename=a.qcow2 z',
  // Operations and what they refuse.
  'bitmap --add a.qcow2 b0',
  'bitmap --remove a.qcow2 nope',
  'bitmap --clear a.qcow2 nope',
  'bitmap --enable a.qcow2 nope',
  'bitmap --merge nope a.qcow2 b0',
  'bitmap --merge b0 a.qcow2 nope',
  'bitmap --add --add a.qcow2 twice',
  'bitmap --merge b0 --merge b1 --disable --enable --clear a.qcow2 b1',
  'bitmap --remove --add -g 8192 a.qcow2 b1',
  'bitmap --add -g 0 a.qcow2 default',
  'bitmap --add -g 2G a.qcow2 coarse',
  'bitmap --disable a.qcow2 coarse',
  'bitmap --image-opts --add driver=qcow2,file.filename=a.qcow2 z1',
  'bitmap --merge s0 -b small.qcow2 -F qcow2 a.qcow2 b0',
  'bitmap --merge s1 -b small.qcow2 a.qcow2 b0',
  'bitmap --merge s0 -b nope a.qcow2 b0',
  'bitmap --remove -f raw r.raw x',
  'info a.qcow2',
  'info --output=json a.qcow2',
  'check a.qcow2',
  // Left behind by a crash (Q-BMP-4).
  'info u.qcow2',
  'check u.qcow2',
  'bitmap --clear u.qcow2 b0',
  'bitmap --enable u.qcow2 b0',
  'bitmap --disable u.qcow2 b0',
  'bitmap --add u.qcow2 b0',
  'bitmap --merge b1 u.qcow2 b0',
  'bitmap --add u.qcow2 good',
  'bitmap --merge b0 u.qcow2 good',
  'resize u.qcow2 20M',
  'resize --shrink u.qcow2 5M',
  'convert --bitmaps -O qcow2 u.qcow2 d7.qcow2',
  'convert --bitmaps --skip-broken-bitmaps -O qcow2 u.qcow2 d7.qcow2',
  'info d7.qcow2',
  'measure -O qcow2 u.qcow2',
  'bitmap --remove u.qcow2 b0',
  'bitmap --remove u.qcow2 b1',
  'resize u.qcow2 20M',
  'bitmap --remove u.qcow2 good',
  'check u.qcow2',
  // A program without support for bitmaps was there (Q-FEAT-7).
  'info stale.qcow2',
  'check stale.qcow2',
  'bitmap --add stale.qcow2 b0',
  'info stale.qcow2',
  // T-CONV-7, T-MEAS-1, Q-ME-2.
  'convert --bitmaps -O qcow2 a.qcow2 d.qcow2',
  'info d.qcow2',
  'check d.qcow2',
  'convert -n --bitmaps -O qcow2 a.qcow2 d.qcow2',
  'convert --bitmaps -O raw a.qcow2 d.raw',
  'convert --bitmaps -O vdi a.qcow2 d.vdi',
  'convert --bitmaps -O qcow2 -o compat=0.10 a.qcow2 d3.qcow2',
  'convert --bitmaps -O qcow2 -f raw r.raw d2.qcow2',
  'convert --bitmaps -O qcow2 v2.qcow2 d6.qcow2',
  'convert --bitmaps -O qcow2 v.vdi d5.qcow2',
  'convert --bitmaps -O qcow2 a.qcow2 a.qcow2 d4.qcow2',
  'convert --skip-broken-bitmaps -O qcow2 a.qcow2 d7.qcow2',
  'convert -n --bitmaps -O qcow2 s.qcow2 big.qcow2',
  'measure -O qcow2 a.qcow2',
  'measure -O qcow2 --output=json a.qcow2',
  'measure -O qcow2 -o cluster_size=512 a.qcow2',
  'measure -O qcow2 -o compat=0.10 a.qcow2',
  'measure -O raw a.qcow2',
  'measure -O qcow2 big.qcow2',
  'measure -O qcow2 r.raw',
  'measure -O qcow2 v2.qcow2',
  'measure -O qcow2 --size 10M',
];

function prepareImages(pair: SideBySide): void {
  const image = (...args: string[]) => pair.prepare('qemu-img', ...args);
  image('create', '-q', '-f', 'qcow2', 'a.qcow2', '10M');
  image('bitmap', '--add', 'a.qcow2', 'b0');
  image('bitmap', '--add', '-g', '4096', 'a.qcow2', 'b1');
  pair.prepare('qemu-io', '-c', 'write 1M 100k', 'a.qcow2');
  image('bitmap', '--disable', 'a.qcow2', 'b1');
  for (const folder of [pair.ours, pair.theirs]) copyFileSync(join(folder, 'a.qcow2'), join(folder, 'u.qcow2'));
  for (const folder of [pair.ours, pair.theirs]) {
    const bytes = readFileSync(join(folder, 'a.qcow2'));
    bytes[95] = 0;
    writeFileSync(join(folder, 'stale.qcow2'), bytes);
  }
  // As a writer that ended at once leaves it.
  pair.prepare('sh', '-c', 'qemu-io -c abort u.qcow2 >/dev/null 2>&1 || true');
  image('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', 'v2.qcow2', '1M');
  image('create', '-q', '-f', 'qcow2', 'big.qcow2', '20M');
  image('create', '-q', '-f', 'vdi', 'v.vdi', '1M');
  image('create', '-q', '-f', 'raw', 'r.raw', '1M');
  for (const [name, size] of [
    ['small', '5M'],
    ['s', '10M'],
  ]) {
    image('create', '-q', '-f', 'qcow2', `${name}.qcow2`, `${size}`);
    image('bitmap', '--add', '--disable', `${name}.qcow2`, 's0');
  }
}

/** Space in use and places in the file depend on the order in which clusters are taken. */
function comparable({ status, stdout, stderr }: Outcome): Outcome {
  const plain = stdout
    .replace(/^disk size: .*\n/gm, '')
    .replace(/^ *"actual-size": \d+,\n/gm, '')
    .replace(/^Image end offset: .*\n/gm, '');
  // Names of nodes are counted, or random. That hint of theirs lacks the end of its line.
  const told = stderr.replace(/#block\d+/g, '#block').replace(/(on the image file to fix\.)\n?/g, '$1\n');
  return { status, stdout: plain, stderr: told };
}

describe.skipIf(peerMissing !== undefined)(`persistent bitmaps${peerMissing ? ` (${peerMissing})` : ''}`, () => {
  let pair: SideBySide;
  beforeAll(async () => {
    pair = await SideBySide.make();
    prepareImages(pair);
  });
  afterAll(() => pair?.remove());

  for (const line of LINES) {
    test(`qemu-img ${line}`, async () => {
      const theirs = pair.runTheirs(wordsOf(line));
      const ours = await pair.runOursHere(wordsOf(line));
      expect(comparable(/^info/.test(line) ? withoutChildren(ours) : ours)).toEqual(comparable(theirs));
    });
  }

  test.each(['0.10', 'raw'])('T-BITMAP-1: an image that can keep none (%s)', async (kind) => {
    const line = kind === 'raw' ? 'bitmap --add -f raw r.raw x' : 'bitmap --add v2.qcow2 x';
    expect(comparable(await pair.runOursHere(wordsOf(line)))).toEqual(comparable(pair.runTheirs(wordsOf(line))));
  });
});

const MIB = 1 << 20;

describe.skipIf(peerMissing !== undefined)(
  `bitmaps from one to the other${peerMissing ? ` (${peerMissing})` : ''}`,
  () => {
    const graph = () => new Graph({ host: nodeHost(), drivers: DRIVERS });
    let pair: SideBySide;
    let path: string;
    beforeAll(async () => {
      pair = await SideBySide.make();
      path = join(pair.theirs, 'x.qcow2');
    });
    afterAll(() => pair?.remove());
    const theirs = (...args: string[]) => {
      const outcome = pair.runTheirs(args);
      expect(outcome).toMatchObject({ status: 0, stderr: '' });
      return outcome.stdout;
    };
    const theirIo = (...commands: string[]) =>
      expect(pair.runTheirIo([...commands.flatMap((each) => ['-c', each]), 'x.qcow2']).status).toBe(0);
    const areas = async (name: string) => {
      await using disk = await graph().open(path, { format: 'qcow2' });
      return [...bitmaps(disk).dirtyAreas(name)].map(({ offset, length }) => [offset, length]);
    };

    test.each([512, 4096, 65536, 2097152])(
      'Q-BMP-1, Q-BMP-2, Q-BMP-6: by turns, with clusters of %i bytes',
      async (clusterSize) => {
        theirs('create', '-q', '-f', 'qcow2', '-o', `cluster_size=${clusterSize}`, 'x.qcow2', '8M');
        theirs('bitmap', '--add', '-g', '512', 'x.qcow2', 'fine');
        theirIo('write 1M 3k', 'write 5M 512');
        {
          await using disk = await graph().open(path, { format: 'qcow2', writable: true });
          expect(bitmaps(disk).list()).toMatchObject([{ name: 'fine', recording: true, persistent: true }]);
          await bitmaps(disk).add('ours', { persistent: true, granularity: 4096 });
          await disk.write(3 * MIB, new Uint8Array(1000).fill(7));
          bitmaps(disk).merge('ours', ['fine']);
          bitmaps(disk).disable('fine');
        }
        expect(theirs('check', 'x.qcow2')).toContain('No errors were found');
        theirIo('write 0 4k');
        theirs('bitmap', '--add', '--disable', '--merge', 'ours', 'x.qcow2', 'copy');
        expect(await areas('fine')).toEqual([
          [MIB, 3072],
          [3 * MIB, 1024],
          [5 * MIB, 512],
        ]);
        const recorded = [
          [0, 4096],
          [MIB, 4096],
          [3 * MIB, 4096],
          [5 * MIB, 4096],
        ];
        expect(await areas('ours')).toEqual(recorded);
        expect((await areas('copy')).map(([offset = 0]) => offset)).toEqual(recorded.map(([offset]) => offset));
        theirs('bitmap', '--remove', 'x.qcow2', 'ours');
        theirs('resize', 'x.qcow2', '16M');
        {
          await using disk = await graph().open(path, { format: 'qcow2', writable: true });
          await disk.resize(12 * MIB, { shrink: true });
          await disk.write(11 * MIB, new Uint8Array(512).fill(1));
          bitmaps(disk).enable('fine');
          await disk.write(0, new Uint8Array(MIB).fill(1));
        }
        expect(await areas('fine')).toEqual([
          [0, MIB + 3072],
          [3 * MIB, 1024],
          [5 * MIB, 512],
        ]);
        expect(theirs('check', 'x.qcow2')).toContain('No errors were found');
        theirIo('discard 0 16k');
      },
    );

    test('Q-BMP-2: clusters that are dirty as a whole', async () => {
      theirs('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', 'x.qcow2', '8M');
      theirs('bitmap', '--add', '-g', '512', 'x.qcow2', 'fine');
      {
        await using disk = await graph().open(path, { format: 'qcow2', writable: true });
        await disk.writeZeroes(MIB, 5 * MIB);
      }
      theirs('bitmap', '--add', '-g', '512', '--disable', '--merge', 'fine', 'x.qcow2', 'copy');
      expect(await areas('copy')).toEqual([[MIB, 5 * MIB]]);
      expect(theirs('check', 'x.qcow2')).toContain('No errors were found');
    });

    test('Q-BMP-4: what we leave behind in a crash, they take for inconsistent, and the other way round', async () => {
      theirs('create', '-q', '-f', 'qcow2', 'x.qcow2', '8M');
      theirs('bitmap', '--add', 'x.qcow2', 'b0');
      const disk = await graph().open(path, { format: 'qcow2', writable: true });
      await disk.write(0, new Uint8Array(512).fill(1));
      copyFileSync(path, join(pair.theirs, 'crashed.qcow2'));
      await disk.close();
      expect(theirs('info', 'crashed.qcow2')).toMatch(/\[0\]: in-use\n\s*\[1\]: auto\n\s*name: b0/);
      expect(pair.runTheirs(['bitmap', '--clear', 'crashed.qcow2', 'b0']).stderr).toContain('is inconsistent');
      theirs('bitmap', '--remove', 'crashed.qcow2', 'b0');
      // The directory from before, at worst.
      pair.runTheirs(['check', '-r', 'leaks', 'crashed.qcow2']);
      expect(theirs('check', 'crashed.qcow2')).toContain('No errors were found');
    });
  },
);
