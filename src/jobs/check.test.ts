import { describe, expect, test } from 'vitest';
import { bytesWith, makeImage, same, type World, withDisk, world } from '../../tests/support/job-disks.ts';
import type { RepairMode } from '../core/driver.ts';
import { type CheckResult, checkDisk } from './check.ts';
import { compactDisk } from './compact.ts';

const MIB = 1 << 20;
const PATH = '/disk';
const BLOCKS_ALLOCATED = 0x184;

async function damaged(damage: (header: DataView) => void): Promise<World> {
  const made = world();
  await makeImage(made.graph, PATH, 'vdi', bytesWith(6 * MIB, [[0, 3 * MIB]]));
  const again = world();
  const bytes = made.host.contents(PATH).slice();
  damage(new DataView(bytes.buffer));
  again.host.put(PATH, bytes);
  return again;
}

async function checked({ graph }: World, repair: RepairMode): Promise<CheckResult & { readonly lines: string[] }> {
  const lines: string[] = [];
  const options = { format: 'vdi', writable: repair !== 'none', checkOnly: true };
  const result = await withDisk(graph, PATH, options, (disk) =>
    checkDisk(disk, { repair, finding: (line) => lines.push(line) }),
  );
  return { ...result, lines };
}

describe('a check (T-CHECK-3, BL-CHECK-1)', () => {
  test('of a sound image finds nothing, and repairs nothing', async () => {
    const made = await damaged(() => {});
    const { report, repaired, lines } = await checked(made, 'all');
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    expect(repaired).toBeUndefined();
    expect(lines).toEqual([]);
  });

  test('without repair changes nothing', async () => {
    const made = await damaged((header) => header.setUint32(BLOCKS_ALLOCATED, 1, true));
    const before = made.host.contents(PATH).slice();
    const { report, repaired, lines } = await checked(made, 'none');
    expect(report.corruptions).toBeGreaterThan(0);
    expect(repaired).toBeUndefined();
    expect(lines.length).toBeGreaterThan(0);
    expect(same(made.host.contents(PATH), before)).toBe(true);
  });

  test('with repair tells what it repaired, and what is left', async () => {
    const made = await damaged((header) => header.setUint32(BLOCKS_ALLOCATED, 1, true));
    const { report, repaired } = await checked(made, 'all');
    expect(repaired?.corruptions).toBeGreaterThan(0);
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, corruptionsFixed: repaired?.corruptions });
    expect((await checked(made, 'none')).report).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('that only plans a repair writes nothing, and tells what is wrong and what would be left (Q-CHK-6)', async () => {
    const made = await damaged((header) => header.setUint32(BLOCKS_ALLOCATED, 1, true));
    await withDisk(made.graph, PATH, { format: 'vdi', writable: true }, (disk) => disk.discard(0, 2 * MIB));
    const before = made.host.contents(PATH).slice();
    const found = await checked(made, 'none');
    const progress: number[] = [];
    const options = {
      repair: 'all',
      plan: true,
      progress: (done: number, total: number) => progress.push(done / total),
    } as const;
    const plan = await withDisk(made.graph, PATH, { format: 'vdi', checkOnly: true }, (disk) =>
      checkDisk(disk, options),
    );
    expect(same(made.host.contents(PATH), before)).toBe(true);
    expect(plan.report).toEqual(found.report);
    expect(plan.planned).toMatchObject({ leaks: found.report.leaks, corruptions: found.report.corruptions });
    expect(plan.planned?.left).toMatchObject({ leaks: 0, corruptions: 0 });
    expect([progress[0], progress.at(-1)]).toEqual([0, 1]);
    const { repaired, report } = await checked(made, 'all');
    expect([{ ...repaired, left: report }]).toEqual([plan.planned]);
  });

  test('of a format that has none is not supported', async () => {
    const { graph, host } = world();
    host.put(PATH, MIB);
    await withDisk(graph, PATH, { format: 'raw' }, async (disk) => {
      await expect(checkDisk(disk)).rejects.toMatchObject({ code: 'ENOTSUP' });
    });
  });
});

test('compacting tells what was in use before and after', async () => {
  const { graph } = world();
  await makeImage(graph, PATH, 'vdi', bytesWith(8 * MIB, [[0, 8 * MIB]]));
  await withDisk(graph, PATH, { format: 'vdi', writable: true }, async (disk) => {
    await disk.write(0, new Uint8Array(6 * MIB));
    const { before = 0, after = 0 } = await compactDisk(disk);
    expect(before).toBeGreaterThan(8 * MIB);
    expect(after).toBeLessThan(4 * MIB);
    const kept = bytesWith(8 * MIB, [[0, 8 * MIB]]).subarray(6 * MIB);
    expect(same(await disk.read(6 * MIB, 2 * MIB), kept)).toBe(true);
  });
});
