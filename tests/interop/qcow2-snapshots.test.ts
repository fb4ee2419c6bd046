/** Snapshots inside qcow2 images and QEMU's programs: what either makes the other lists, applies and deletes; in the same words. */
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Graph } from '../../src/core/graph.ts';
import { DEFAULT_OPEN_POLICY } from '../../src/core/policy.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { nodeHost } from '../../src/node/host.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { wordsOf } from './cli-cases.ts';
import { type Outcome, peerMissing, withoutChildren } from './cli-programs.ts';
import { runHere } from './in-process.ts';

const SIZE = 1 << 20;

const PLANS: readonly string[] = [
  'cluster_size=65536',
  'cluster_size=512,refcount_bits=64,lazy_refcounts=on',
  'compat=0.10,backing_file=base.raw,backing_fmt=raw',
  'cluster_size=16384,extended_l2=on,refcount_bits=4,backing_file=base.raw,backing_fmt=raw',
];

/** On an image with the snapshots `s1`, `s2` (empty name) and `big` (another size). */
const LINES: readonly string[] = [
  'snapshot -l a.q',
  'snapshot -U -l a.q',
  'info -U a.q',
  'info --output=json a.q',
  'snapshot --image-opts -l driver=qcow2,file.filename=a.q',
  'snapshot -l raw.img',
  'snapshot -l df.q',
  'snapshot -c x df.q',
  'snapshot -a x df.q',
  'snapshot -d x df.q',
  'snapshot -c x narrow.q',
  'snapshot -c x --image-opts driver=raw,file.filename=raw.img',
  'snapshot -a x --image-opts driver=raw,file.filename=raw.img',
  'snapshot -d x --image-opts driver=raw,file.filename=raw.img',
  'snapshot -a nope a.q',
  'snapshot -d nope a.q',
  'snapshot -d 1 a.q',
  'snapshot -U -c y a.q',
  'snapshot a.q',
  'snapshot',
  'snapshot -l',
  'snapshot -l a.q a.q',
  'snapshot -l -l a.q',
  'snapshot -a x -c y a.q',
  'snapshot -c',
  'snapshot --bogus a.q',
  'snapshot -f qcow2 -l a.q',
  'snapshot -l nofile.q',
  'snapshot -a s1 bitmap.q',
  'snapshot -a s1 unaligned.q',
  'snapshot -d s1 unaligned.q',
  'snapshot -a s1 toolarge.q',
  'snapshot -d s1 toolarge.q',
  'convert -l nope -O raw a.q o.raw',
  'convert -l snapshot.id=9 -O raw a.q o.raw',
  'convert -l snapshot.name=s1,snapshot.id=2 -O raw a.q o.raw',
  'convert -l snapshot.foo=9 -O raw a.q o.raw',
  "convert -l '' -O raw raw.img o.raw",
  'convert -l x -O raw df.q o.raw',
  'convert -l x -O raw raw.img o.raw',
  'convert -l s1 -O raw a.q a.q o.raw',
  'convert -l s1 -O raw unaligned.q o.raw',
  'convert -l s1 -O raw toolarge.q o.raw',
  'convert -l s1 -O raw a.q o.raw',
  'convert -l snapshot.id=2 -O qcow2 a.q o.q',
  'check o.q',
  'measure -l nope -O qcow2 a.q',
  'measure -l 2 -O qcow2 a.q',
  'check unaligned.q',
  'check toolarge.q',
  'check outside.q',
  'check incomplete.q',
  'check extra.q',
  'check manysnapshots.q',
  'check -r leaks unaligned.q',
  'check -r all incomplete.q',
  'check -r all extra.q',
  'info extra.q',
  'info manysnapshots.q',
  'info tableoff.q',
  'check tableoff.q',
  'check datafile.q',
];

describe.skipIf(peerMissing !== undefined)(`snapshots and QEMU${peerMissing ? ` (${peerMissing})` : ''}`, () => {
  let folder: string;
  const base = operationData(5, 700_000);
  const path = (name: string) => join(folder, name);
  const qemu = (program: string, ...args: string[]) =>
    execFileSync(program, args, { encoding: 'utf8', stdio: 'pipe', cwd: folder });
  const ours = (line: string) => runHere('qemu-img', wordsOf(line), folder);
  const theirs = (line: string): Outcome => {
    const { status, stdout, stderr } = spawnSync('qemu-img', wordsOf(line), { encoding: 'utf8', cwd: folder });
    return { status, stdout, stderr };
  };
  const graph = () => new Graph({ host: nodeHost(), drivers: DRIVERS, openPolicy: DEFAULT_OPEN_POLICY });
  const open = (name: string, writable: boolean) => graph().open(path(name), { format: 'qcow2', writable });

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'diskwright-snapshots-'));
    writeFileSync(path('base.raw'), base);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** What the image and each of its snapshots hold, by both programs; clean, says the check of either. */
  async function expectContent(name: string, disk: Uint8Array, kept: ReadonlyMap<string, Uint8Array>): Promise<void> {
    qemu('qemu-img', 'check', '-q', '-f', 'qcow2', name);
    for (const [snapshot, content] of [['', disk] as const, ...kept]) {
      const chosen = snapshot === '' ? [] : ['-l', snapshot];
      qemu('qemu-img', 'convert', '-f', 'qcow2', ...chosen, '-O', 'raw', name, 'theirs.raw');
      expect(differsAt(readFileSync(path('theirs.raw')), content)).toBe(-1);
      const reader = await open(name, false);
      const report = await reader.check({ repair: 'none', finding: () => {} });
      expect([report.corruptions, report.leaks, report.checkErrors]).toEqual([0, 0, 0]);
      if (snapshot !== '') await reader.snapshots.show(snapshot);
      expect(differsAt(await reader.read(0, reader.length), content)).toBe(-1);
      await reader.close();
    }
  }

  test.each(PLANS)('made, applied and deleted by both in turn: %s', async (options) => {
    const name = 'turn.q';
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, name, String(SIZE));
    let content = new Uint8Array(SIZE);
    if (options.includes('base')) content.set(base);
    const kept = new Map<string, Uint8Array>();
    const writeTheirs = (byte: number, offset: number, length: number) => {
      qemu('qemu-io', '-f', 'qcow2', '-c', `write -P ${byte} ${offset} ${length}`, name);
      content.fill(byte, offset, offset + length);
    };
    const change = async (work: (disk: Awaited<ReturnType<typeof open>>) => Promise<unknown>) => {
      const disk = await open(name, true);
      await work(disk);
      await disk.close();
    };
    const writeOurs = async (byte: number, offset: number, length: number) => {
      await change((disk) => disk.write(offset, new Uint8Array(length).fill(byte)));
      content.fill(byte, offset, offset + length);
    };
    writeTheirs(1, 0, 200_192);
    await change((disk) => disk.snapshots.create('ours'));
    kept.set('ours', content.slice());
    writeTheirs(2, 65536, 70_144);
    qemu('qemu-img', 'snapshot', '-c', 'theirs', name);
    kept.set('theirs', content.slice());
    await writeOurs(3, 100_000, 150_001);
    await expectContent(name, content, kept);
    qemu('qemu-img', 'snapshot', '-a', 'ours', name);
    content = kept.get('ours')?.slice() ?? content;
    await writeOurs(4, 1000, 3000);
    writeTheirs(5, 512, 1024);
    await change((disk) => disk.snapshots.apply('theirs'));
    content = kept.get('theirs')?.slice() ?? content;
    writeTheirs(6, 300_032, 200_704);
    qemu('qemu-img', 'snapshot', '-d', 'ours', name);
    kept.delete('ours');
    await expectContent(name, content, kept);
    await change((disk) => disk.snapshots.delete('theirs'));
    kept.delete('theirs');
    writeTheirs(7, 0, 4096);
    await expectContent(name, content, kept);
  });

  test('Q-SNAP-5: sizes, machine state and many snapshots, both ways', async () => {
    const name = 'sizes.q';
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', name, String(SIZE));
    qemu('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 64k', '-c', 'write -b -P 9 0 192k', name);
    const disk = await open(name, true);
    const state = await disk.snapshots.vmState.read(0, 192 << 10);
    expect(state.every((byte) => byte === 9)).toBe(true);
    await disk.snapshots.create('running', { vmStateSize: state.length, vmClock: 3_723_004_000_000n });
    await disk.resize(3 * SIZE);
    await disk.write(2 * SIZE, new Uint8Array(1000).fill(8));
    await disk.snapshots.create('large');
    await disk.close();
    expect(qemu('qemu-img', 'snapshot', '-l', name)).toMatch(/running +192 KiB/);
    expect(qemu('qemu-img', 'snapshot', '-l', name)).toContain('01:02:03.004');
    qemu('qemu-img', 'snapshot', '-a', 'running', name);
    qemu('qemu-img', 'check', '-q', name);
    expect(qemu('qemu-img', 'info', name)).toContain('virtual size: 1 MiB');
    expect(qemu('qemu-io', '-f', 'qcow2', '-c', 'read -b -P 9 0 192k', name)).not.toContain('failed');
    qemu('qemu-img', 'snapshot', '-a', 'large', name);
    const again = await open(name, true);
    expect(again.length).toBe(3 * SIZE);
    for (let i = 0; i < 20; i++) await again.snapshots.create(`s${i}`);
    await again.snapshots.apply('running');
    expect(again.length).toBe(SIZE);
    await again.close();
    qemu('qemu-img', 'check', '-q', name);
    for (let i = 0; i < 20; i += 2) qemu('qemu-img', 'snapshot', '-d', `s${i}`, name);
    qemu('qemu-img', 'check', '-q', name);
  });

  /** Images with one thing wrong in their snapshot table. */
  function damaged(name: string, change: (view: DataView, table: number) => void): void {
    const bytes = new Uint8Array(readFileSync(path('sound.q')));
    const view = new DataView(bytes.buffer);
    change(view, Number(view.getBigUint64(64)));
    writeFileSync(path(name), bytes);
  }

  function makeFiles(): void {
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', 'a.q', String(SIZE));
    qemu('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 128k', 'a.q');
    qemu('qemu-img', 'snapshot', '-c', 's1', 'a.q');
    qemu('qemu-io', '-f', 'qcow2', '-c', 'write -P 2 0 64k', 'a.q');
    qemu('qemu-img', 'snapshot', '-c', '', 'a.q');
    copyFileSync(path('a.q'), path('sound.q'));
    qemu('qemu-img', 'snapshot', '-c', '\u00fcmlaut and a name that is long', 'a.q');
    copyFileSync(path('sound.q'), path('bitmap.q'));
    qemu('qemu-img', 'bitmap', '--add', 'bitmap.q', 'b0');
    qemu('qemu-img', 'create', '-q', '-f', 'raw', 'raw.img', '64k');
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'data_file=df.raw', 'df.q', '64k');
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'refcount_bits=1', 'narrow.q', '64k');
    qemu('qemu-io', '-f', 'qcow2', '-c', 'write 0 64k', 'narrow.q');
    damaged('unaligned.q', (view, table) => view.setBigUint64(table, 0x12345n));
    damaged('outside.q', (view, table) => view.setBigUint64(table, 0x20000000n));
    damaged('toolarge.q', (view, table) => view.setUint32(table + 8, 0x20000000));
    damaged('manysnapshots.q', (view) => view.setUint32(60, 70000));
    damaged('tableoff.q', (view, table) => view.setBigUint64(64, BigInt(table + 8)));
    damaged('extra.q', (view, table) => {
      view.setUint32(table + 36, 2000);
      view.setUint32(60, 1);
    });
    damaged('incomplete.q', (view, table) => {
      // Without extra data: the id and the name come right behind the fixed part.
      for (let i = 0; i < 3; i++) view.setUint8(table + 40 + i, view.getUint8(table + 64 + i));
      view.setUint32(table + 36, 0);
      view.setUint32(60, 1);
    });
    const bytes = new Uint8Array(0x60000 + 2 * 65536);
    bytes.set(readFileSync(path('df.q')));
    const view = new DataView(bytes.buffer);
    view.setUint32(60, 1);
    view.setBigUint64(64, 0x60000n);
    view.setUint32(0x20000 + 12, 0x10001);
    view.setBigUint64(0x60000, 0x70000n);
    view.setUint32(0x60000 + 8, 1);
    view.setUint16(0x60000 + 12, 1);
    view.setUint32(0x60000 + 36, 24);
    view.setBigUint64(0x60000 + 48, 65536n);
    view.setUint8(0x60000 + 64, 0x31);
    writeFileSync(path('datafile.q'), bytes);
  }

  const comparable = ({ status, stdout, stderr }: Outcome) => ({
    status,
    stdout: stdout.replace(/^disk size: .*\n|^ +"actual-size": .*\n/gm, '').replace(/^bitmaps size: .*\n/gm, ''),
    stderr,
  });

  test('T-SNAP-1, T-SNAP-2, T-CONV-5, Q-CHK-3, Q-CHK-4: the same words', async () => {
    const differences: unknown[] = [];
    makeFiles();
    for (const line of LINES) {
      // What is repaired is repaired by both.
      const repaired = line.includes(' -r ') ? path(line.split(' ').at(-1) ?? '') : undefined;
      if (repaired !== undefined) copyFileSync(repaired, path('kept'));
      const found = comparable(withoutChildren(await ours(line)));
      if (repaired !== undefined) copyFileSync(path('kept'), repaired);
      const wanted = comparable(theirs(line));
      if (JSON.stringify(found) !== JSON.stringify(wanted)) differences.push({ line, found, wanted });
    }
    expect(differences).toEqual([]);
  });
});
