import { expect, test } from 'vitest';
import { Graph } from '../../core/graph.ts';
import { DRIVERS } from '../../drivers.ts';
import { logEntries, replay } from '../../jobs/replay.ts';
import { SimHost } from '../../testing/index.ts';
import { mark } from './log.ts';

const SIZE = 1 << 20;

async function recorded() {
  const host = new SimHost();
  host.put('/disk', SIZE);
  host.put('/log', 0);
  host.put('/copy', SIZE);
  const graph = new Graph({ host, drivers: DRIVERS });
  const disk = await graph.open(
    {
      driver: 'log',
      file: { driver: 'file', filename: '/disk' },
      log: { driver: 'file', filename: '/log' },
    },
    { writable: true },
  );
  const raw = (filename: string, writable = false) =>
    graph.open({ driver: 'raw', file: { driver: 'file', filename } }, { writable });
  return { disk, raw };
}

test('everything is recorded in order, and replays to the same disk', async () => {
  const { disk, raw } = await recorded();
  await disk.write(0, new Uint8Array(1024).fill(1));
  await disk.flush();
  await mark(disk, 'half');
  await disk.writeZeroes(4096, 4096);
  await disk.write(100, new Uint8Array(8).fill(9), { fua: true });
  await disk.discard(8192, 4096);
  const content = await disk.read(0, SIZE);
  await disk.close();
  {
    await using log = await raw('/log');
    const kinds: string[] = [];
    for await (const { entry } of logEntries(log)) {
      kinds.push('offset' in entry ? `${entry.kind} ${entry.offset}+${entry.length}` : entry.kind);
    }
    expect(kinds).toEqual([
      'write 0+1024',
      'flush',
      'mark',
      'write 4096+4096',
      'write 0+512',
      'flush',
      'discard 8192+4096',
      'flush',
    ]);
    await using copy = await raw('/copy', true);
    expect(await replay(log, copy, { untilMark: 'half' })).toEqual({ entries: 2, next: 2 });
    expect((await copy.read(100, 1))[0]).toBe(1);
    await expect(replay(log, copy, { untilMark: 'no' })).rejects.toMatchObject({ code: 'ENOENT' });
    expect(await replay(log, copy, { from: 2 })).toEqual({ entries: 6, next: 8 });
    expect(Buffer.compare(await copy.read(0, SIZE), content)).toBe(0);
  }
});
