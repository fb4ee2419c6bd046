/** What a check finds (V-45, V-46), and what it says of it. */
import { describe, expect, test } from 'vitest';
import { PATH } from '../../../tests/support/sim-disks.ts';
import { FREE, ZERO } from '../../../tests/support/vdi-bytes.ts';
import { BLOCK, block, checked, field, hostWith, newImage, withDisk } from '../../../tests/support/vdi-on-sim.ts';
import type { SimHost } from '../../testing/index.ts';

const look = (host: SimHost) => withDisk(host, (disk) => checked(disk), { writable: false, checkOnly: true });

const ALL_CASES: readonly {
  readonly name: string;
  readonly plan: Parameters<typeof hostWith>[0];
  readonly fields?: Parameters<typeof hostWith>[1];
  readonly corruptions: number;
  readonly leaks?: number;
  readonly findings: readonly string[];
}[] = [
  { name: 'nothing wrong', plan: { map: [1, FREE, 0, ZERO] }, corruptions: 0, findings: [] },
  {
    name: 'an entry at the number of blocks',
    plan: { map: [0, 3, FREE], slots: 1 },
    fields: { allocated: 1 },
    corruptions: 1,
    findings: ['ERROR: block index 1 too large, is 3'],
  },
  {
    name: 'an entry used twice',
    plan: { map: [1, 0, 1] },
    fields: { allocated: 3 },
    corruptions: 1,
    findings: ['ERROR: block index 1 also used by 1'],
  },
  {
    name: 'a count below what is stored',
    plan: { map: [0, 1, 2] },
    fields: { allocated: 1 },
    corruptions: 1,
    findings: ['ERROR: allocated blocks mismatch, is 3, should be 1'],
  },
  {
    name: 'a count above what the file holds',
    plan: { map: [0, 1, FREE] },
    fields: { allocated: 3 },
    corruptions: 1,
    findings: ['ERROR: allocated blocks mismatch, is 2, should be 3'],
  },
  {
    name: 'a count above the number of blocks',
    plan: { map: [0, 1] },
    fields: { allocated: 700 },
    corruptions: 1,
    findings: ['ERROR: allocated blocks mismatch, is 2, should be 700'],
  },
  {
    name: 'all of these, in the order of the map, the count last',
    plan: { map: [0, 9, 0, 1], slots: 2 },
    fields: { allocated: 1 },
    corruptions: 3,
    findings: [
      'ERROR: block index 1 too large, is 9',
      'ERROR: block index 0 also used by 0',
      'ERROR: allocated blocks mismatch, is 3, should be 1',
    ],
  },
  {
    name: 'an entry behind the end of the file',
    plan: { map: [0, 2, FREE], slots: 1 },
    corruptions: 1,
    findings: ['ERROR: block index 1 beyond the end of the file, is 2'],
  },
  {
    name: 'slots of the count that no entry names',
    plan: { map: [3, 0, FREE, FREE], slots: 4 },
    fields: { allocated: 4 },
    corruptions: 0,
    leaks: 2,
    findings: ['Leaked blocks 1 to 2'],
  },
  {
    name: 'slots of the file behind the count',
    plan: { map: [0, FREE, FREE], slots: 2 },
    corruptions: 0,
    leaks: 1,
    findings: ['Leaked block 1'],
  },
  {
    name: 'sectors of the logical geometry that are none',
    plan: { map: [0] },
    fields: { logicalSectorSize: 4096 },
    corruptions: 1,
    findings: ['ERROR: logical geometry has sectors of 4096 bytes, should be 512'],
  },
];

describe('a check', () => {
  test.each(ALL_CASES)('finds $name', async ({ plan, fields = {}, corruptions, leaks = 0, findings }) => {
    const host = hostWith(plan, fields);
    const before = host.contents(PATH);
    const found = await look(host);
    expect(found.findings).toEqual(findings);
    expect(found.report).toMatchObject({
      corruptions,
      leaks,
      checkErrors: 0,
      corruptionsFixed: 0,
      leaksFixed: 0,
    });
    expect(host.contents(PATH)).toEqual(before);
  });

  test.each(ALL_CASES)(
    'repairs $name, and finds nothing afterwards',
    async ({ plan, fields = {}, corruptions, leaks = 0 }) => {
      const host = hostWith(plan, fields);
      const { report } = await withDisk(host, (disk) => checked(disk, 'all'), { checkOnly: true });
      expect(report).toMatchObject({ corruptionsFixed: corruptions, leaksFixed: leaks });
      const again = await look(host);
      expect(again.findings).toEqual([]);
      expect(again.report).toMatchObject({ corruptions: 0, leaks: 0 });
    },
  );

  test('repairs counts and leaks under `leaks`, and nothing else', async () => {
    const leaking = hostWith({ map: [2, FREE, 0], slots: 3 }, { allocated: 3 });
    const { report } = await withDisk(leaking, (disk) => checked(disk, 'leaks'));
    expect(report).toMatchObject({ leaksFixed: 1 });
    expect([field(leaking, 'allocated'), leaking.contents(PATH).length]).toEqual([2, 0x400 + 2 * BLOCK]);
    const miscounted = hostWith({ map: [1, FREE, 0] }, { allocated: 1 });
    await withDisk(miscounted, (disk) => checked(disk, 'leaks'));
    expect(field(miscounted, 'allocated')).toBe(2);
    const doubled = hostWith({ map: [0, 0, FREE], slots: 2 });
    const before = doubled.contents(PATH);
    const kept = await withDisk(doubled, (disk) => checked(disk, 'leaks'), { checkOnly: true });
    expect(kept.report).toMatchObject({ corruptionsFixed: 0, leaksFixed: 0 });
    expect(doubled.contents(PATH)).toEqual(before);
  });

  test('of a session that has not been flushed finds nothing wrong', async () => {
    const host = await newImage(8);
    await withDisk(host, async (disk) => {
      await disk.write(0, block(1));
      await disk.write(5 * BLOCK, block(2, 10));
      expect((await checked(disk)).report).toMatchObject({ corruptions: 0 });
      await disk.flush();
      expect((await checked(disk)).report).toMatchObject({ corruptions: 0, leaks: 0 });
      await disk.discard(0, BLOCK);
      expect((await checked(disk)).report).toMatchObject({ corruptions: 0 });
      await disk.flush();
      expect((await checked(disk)).report).toMatchObject({ corruptions: 0, leaks: 1 });
    });
  });

  test('tells sizes: blocks in all and stored, where the image ends', async () => {
    const { report } = await look(hostWith({ map: [1, FREE, 0, 2] }));
    expect(report).toMatchObject({ totalClusters: 4, allocatedClusters: 3, imageEndOffset: 0x400 + 3 * BLOCK });
  });

  test('does not tell of each of very many findings', async () => {
    const map = Array.from({ length: 30_000 }, () => 0xfffffff0);
    const { report, findings } = await look(hostWith({ map, slots: 0 }, { allocated: 0 }));
    expect(report.corruptions).toBe(30_000);
    expect(findings.length).toBeLessThan(20_000);
    expect(findings.at(-1)).toContain('More findings');
  });
});
