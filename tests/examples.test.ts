/** The examples run as they are, against the built package, each in a folder of its own. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { transform } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { build } from '../scripts/build.mjs';
import { root } from './tidy/source-files.ts';

const folder = mkdtempSync(join(tmpdir(), 'diskwright-examples-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeAll(async () => {
  await build();
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(root, join(folder, 'node_modules/diskwright'));
});

async function runExample(name: string): Promise<string> {
  const { code } = await transform(readFileSync(join(root, 'examples', name), 'utf8'), {
    loader: 'ts',
    target: 'node20.19',
  });
  const cwd = join(folder, name);
  mkdirSync(cwd);
  writeFileSync(join(cwd, 'example.mjs'), code);
  const run = spawnSync(process.execPath, ['example.mjs'], { cwd, encoding: 'utf8' });
  expect(run.stderr).toBe('');
  expect(run.status).toBe(0);
  return run.stdout;
}

const EXPECTED: Readonly<Record<string, RegExp>> = {
  'compressed.ts': /^31 of 128 clusters are stored, compressed\n$/,
  'encrypted-image.ts': /^for your eyes only\nencrypted: true\n$/,
  'create-write-read.ts': /^Hello, disk\nvdi, 1073741824 bytes, \d+ of them in use on the host\n$/,
  'convert.ts': /^0 %\n[\s\S]*100 %\nidentical\n$/,
  'image-chain.ts': /^changes\.vdi is based on base\.vdi\nbase\.vdi stands alone\nHello, base\n1\n$/,
  'live-graph.ts': /^with a filter: file,vdi,copy-on-read\nwith a snapshot: file,vdi,file,vdi\nchanges\.vdi\nafter \n$/,
  'incremental-copy.ts': /^0: 65536 bytes\n299958272: 65536 bytes\nidentical\n$/,
  'check-and-repair.ts': /allocated blocks mismatch[\s\S]*corruptions: 1\nrepaired: 1, left: 0\n$/,
  'map.ts': /^0: 1048576 bytes at \d+ of the file\n1048576: \d+ bytes of zeroes\n(.*\n){4}$/,
  'blob-driver.ts': /^$/,
  'removable-media.ts':
    /^\{"device":"cd0","id":"cd0","tray-open":true\}\nthere is a medium\n[\s\S]*the medium is gone\nthere is a medium\n.*\nvdi: 2097152, 1048576\nfile: 1048576, 0\nthe medium is gone\n$/,
  'crash-lab.ts':
    /^Not crash-consistent \(seed 1, .*\n.*one is lost:\n {2}write of 512 bytes at 512 \(entry 0\)\n.*\n10 states, all survive\n$/,
  'faulty-disk.ts': /^write 0 done\nwrite 1 done\nwrite 2: EIO\nwrite 3 done\n8\n0\n$/,
  'fault-rules.ts':
    /^first write: done\nsecond write: No space left on device\nthird write: done\ntorn write: Input\/output error\nof it are there: 512 bytes\nhits: 1\nread at 0, after read_aio\n6\nflush at 0, after flush_to_disk\n$/,
  'fault-tolerant.ts':
    /^Not fault-tolerant \(seed \d+\); 1 fault is enough:\n {2}write of 512 bytes at \d+ \(request \d\): torn after 100 bytes, EIO\nfails: \d was confirmed, \d is there\n50 runs, many faults, none of them did harm\n$/,
  'mirror.ts':
    /^blkverify: read offset=4096 bytes=8192 contents mismatch at offset 8192\n6 requests, 1 of them wrong\nblkverify: verify offset=0 bytes=65536 contents mismatch at offset 8192\n$/,
  'record-and-replay.ts':
    /^0 write 0\+512\n1 flush\n2 mark\n3 write 0\+512 fua\n4 discard 4096\+4096\n5 flush\nat the mark: 1\nat the end: 2\n$/,
  'serve.ts': /^over a socket\nclients: 1, bytes written: 13\nNBDMAGIC\n$/,
  'snapshots.ts': /^before\n2: after the update\nafter \nafter \n$/,
  'contexts.ts': /^read in context remote\nread in the main context\n$/,
};

describe('examples', () => {
  test.each(Object.entries(EXPECTED))('%s', async (name, expected) => {
    expect(await runExample(name)).toMatch(expected);
  });

  test('are all here', () => {
    const present = readdirSync(join(root, 'examples')).filter((name) => name.endsWith('.ts'));
    expect(present.sort()).toEqual(Object.keys(EXPECTED).sort());
  });
});
