/**
 * Growing an image whose blocks are all stored and whose map has no room: until the longer map is there, blocks that
 * moved have numbers beyond those the old one may name. The one place where a crash leaves more than leaks: a repair
 * is needed then, and loses nothing (V-67).
 */
import { expect, test } from 'vitest';
import { exploreCrashes, SimHost } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { PATH } from '../support/sim-disks.ts';
import { makeVdi } from '../support/vdi-bytes.ts';
import { BLOCK, checked, expectSame, stored, withDisk } from '../support/vdi-on-sim.ts';

const FULL = makeVdi({ diskSize: 128 * BLOCK, blockSize: BLOCK, map: Array.from({ length: 128 }, (_, i) => 127 - i) });

test.each([129, 3000])('to %i blocks: what a crash leaves is repaired without loss', async (blocks) => {
  const before = new SimHost({ record: false });
  before.put(PATH, FULL);
  const content = stored(before).content();
  let repaired = 0;
  await exploreCrashes(
    {
      start() {
        const host = new SimHost();
        host.put(PATH, FULL);
        return host;
      },
      workload: (host) => withDisk(host, (disk) => disk.resize(blocks * BLOCK)),
      async check(host) {
        const { report } = await withDisk(host, (disk) => checked(disk, 'all'), { checkOnly: true });
        repaired += report.corruptionsFixed;
        await withDisk(host, async (disk) => {
          expect((await checked(disk)).report).toMatchObject({ corruptions: 0, leaks: 0 });
          expectSame(await disk.read(0, content.length), content);
          await disk.resize(4000 * BLOCK);
          expectSame(await disk.read(0, content.length), content);
        });
        expect(stored(host).problems).toEqual([]);
      },
    },
    { seed: testSeed, statesPerCut: longMode ? 200 : 16 },
  );
  expect(repaired).toBeGreaterThan(0);
});
