/** Q-BEY-1: images of qemu-img, compacted by us, are sound and the same to it, with their snapshots, bitmaps and compression. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bitmaps } from '../../src/bitmaps/bitmaps.ts';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { nodeHost } from '../../src/node/host.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { readBitmaps } from '../support/qcow2-bitmaps.ts';
import { peersMissing, qemuImgOk, qemuIo, skipNote } from './peer.ts';

const MIB = 1024 * 1024;

describe.skipIf(peersMissing !== undefined)(`compaction beside QEMU${skipNote}`, () => {
  let folder = '';
  const at = (name: string) => join(folder, name);
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'diskwright-compact-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  async function compactAndCheck(path: string): Promise<void> {
    const disk = await new Graph({ host: nodeHost(), drivers: DRIVERS }).open(path, {
      format: 'qcow2',
      writable: true,
    });
    await disk.compact();
    await disk.close();
    // Exits with 2 for damage and 3 for leaks, and then throws.
    qemuImgOk('check', '-q', '-f', 'qcow2', path);
  }

  function expectSame(a: string, b: string, ...options: string[]): void {
    execFileSync('qemu-img', ['compare', '-q', ...options, a, b], { stdio: 'pipe' });
  }

  test.each([
    'cluster_size=65536',
    'cluster_size=2048,refcount_bits=64',
    'cluster_size=16384,extended_l2=on',
    'cluster_size=4096,compat=0.10',
  ])('with snapshots and a bitmap, %s', async (options) => {
    const path = at('snapshots.qcow2');
    rmSync(path, { force: true });
    qemuImgOk('create', '-q', '-f', 'qcow2', '-o', options, path, '6M');
    qemuIo('qcow2', path, ['write -P 1 0 3M', 'write -P 2 4M 1M']);
    qemuImgOk('snapshot', '-c', 'first', path);
    qemuIo('qcow2', path, ['write -P 3 1M 1M', 'discard 4M 1M', 'write -P 4 5M 512k']);
    const hasBitmaps = !options.includes('compat');
    if (hasBitmaps) qemuImgOk('bitmap', '--add', path, 'changes');
    qemuImgOk('snapshot', '-c', 'second', path);
    qemuIo('qcow2', path, ['write -P 5 0 1M', 'discard 2M 1M', 'write -P 6 3M 300k']);
    qemuImgOk('snapshot', '-d', 'first', path);
    qemuImgOk('convert', '-O', 'raw', path, at('now.raw'));
    qemuImgOk('convert', '-O', 'raw', '-l', 'second', path, at('second.raw'));
    const before = statSync(path).size;
    await compactAndCheck(path);
    expect(statSync(path).size).toBeLessThan(before - MIB / 2);
    expectSame(path, at('now.raw'), '-f', 'qcow2', '-F', 'raw');
    qemuImgOk('convert', '-O', 'raw', '-l', 'second', path, at('again.raw'));
    expectSame(at('second.raw'), at('again.raw'), '-f', 'raw', '-F', 'raw');
    if (hasBitmaps) expect(qemuImgOk('info', path)).toContain('name: changes');
  });

  test('a bitmap whose clusters are moved has what it had, to us and to qemu-img', async () => {
    const path = at('bitmap.qcow2');
    qemuImgOk('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4096', path, '24M');
    qemuIo('qcow2', path, ['write -P 1 0 2M']);
    qemuImgOk('bitmap', '--add', '-g', '512', path, 'changes');
    // In the reach of each of its two clusters of data, so that neither is of one kind.
    qemuIo('qcow2', path, ['write -P 2 1M 5k', 'write -P 3 17M 512', 'write -P 4 23M 99k', 'discard 4k 900k']);
    const before = readFileSync(path);
    await compactAndCheck(path);
    const after = readFileSync(path);
    expect(after.length).toBeLessThan(before.length - MIB / 2);
    const [was, is] = [before, after].map((bytes) => readBitmaps(bytes).bitmaps[0]);
    expect([is?.name, is?.inUse, is?.auto, is?.dirty]).toEqual(['changes', false, true, was?.dirty]);
    expect(is?.dirty).toHaveLength(10 + 1 + 198 + 1800);
    // The table, and both clusters that it names.
    const places = (bytes: Buffer, table = 0) => [
      table,
      bytes.readBigUInt64BE(table),
      bytes.readBigUInt64BE(table + 8),
    ];
    for (const [i, place] of places(after, is?.tableAt).entries()) {
      expect(Number(place)).toBeGreaterThan(0);
      expect(place).not.toBe(places(before, was?.tableAt)[i]);
    }
    qemuImgOk('convert', '--bitmaps', '-O', 'qcow2', path, at('copy.qcow2'));
    expect(readBitmaps(readFileSync(at('copy.qcow2'))).bitmaps).toMatchObject([{ name: 'changes', dirty: was?.dirty }]);
    const disk = await new Graph({ host: nodeHost(), drivers: DRIVERS }).open(path, { format: 'qcow2' });
    expect(bitmaps(disk).list()).toMatchObject([{ name: 'changes', count: 512 * (was?.dirty.length ?? 0) }]);
    await disk.close();
  });

  test.each(['zlib', 'zstd'])('what qemu-img compressed with %s', async (type) => {
    const content = operationData(5, 4 * MIB);
    for (let i = 0; i < content.length; i++) if ((i >> 9) % 2 === 0) content[i] = i >> 12;
    writeFileSync(at('soft.raw'), content);
    const path = at(`${type}.qcow2`);
    qemuImgOk('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', `compression_type=${type}`, at('soft.raw'), path);
    qemuIo('qcow2', path, ['discard 0 1M', 'discard 2M 512k', 'write -P 9 3M 64k']);
    qemuImgOk('convert', '-O', 'raw', path, at('soft-now.raw'));
    const before = statSync(path).size;
    await compactAndCheck(path);
    expect(statSync(path).size).toBeLessThan(before - MIB / 2);
    expectSame(path, at('soft-now.raw'), '-f', 'qcow2', '-F', 'raw');
  });
});
