/** Which snapshot a command line means, and lists of them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createImage } from '../core/create.ts';
import { Graph } from '../core/graph.ts';
import { DRIVERS } from '../drivers.ts';
import { nodeHost } from '../node/host.ts';
import { GivenOptions } from './command.ts';
import { ObjectList } from './command-line/objects.ts';
import { readArguments } from './nbd/arguments.ts';
import { closeExports, openExports } from './nbd/open-exports.ts';
import { snapshotLines } from './output/snapshot-list.ts';
import { Messages } from './output/stream.ts';
import { openAtSnapshot, snapshotChoice } from './snapshots.ts';

const silent = () => {};

test('T-CONV-5: an id or a name, or keys that are checked', () => {
  expect(snapshotChoice('s1', silent)).toBe('s1');
  expect(snapshotChoice('snapshot', silent)).toBe('snapshot');
  expect(snapshotChoice('snapshot.id=1', silent)).toEqual({ id: '1' });
  expect(snapshotChoice('snapshot.id=1,snapshot.name=x,,y', silent)).toEqual({ id: '1', name: 'x,y' });
  expect(() => snapshotChoice('snapshot.id=1,foo=2', silent)).toThrow("Invalid parameter 'foo'");
});

const some = {
  id: '1',
  name: 's1',
  time: new Date(2026, 10, 20, 19, 33, 5).getTime(),
  nanoseconds: 0,
  vmStateSize: 0,
  vmClock: 0n,
  instructionCount: 0n,
  diskSize: 512,
};

test('T-SNAP-2: nothing for no snapshots; columns, which long tags push', () => {
  expect(snapshotLines([])).toEqual([]);
  const odd = {
    ...some,
    id: '12',
    name: '\u00fc and a name that is long',
    vmStateSize: 1536,
    instructionCount: undefined,
  };
  expect(snapshotLines([some, { ...odd, vmClock: 360_061_004_000_001n }])).toEqual([
    'Snapshot list:',
    'ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT',
    '1         s1                    0 B 2026-11-20 19:33:05 00:00:00.000          0',
    '12        \u00fc and a name that is long  1.5 KiB 2026-11-20 19:33:05100:01:01.004           ',
  ]);
});

test('N-110: diskwright-nbd -l, and serve and mount with it, export a snapshot, to be read only and with its size', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'diskwright-export-'));
  const name = join(folder, 'disk.qcow2');
  const graph = new Graph({ host: nodeHost(), drivers: DRIVERS });
  const messages = new Messages('diskwright-nbd', 2);
  const opened = (choice: string) => {
    const args = readArguments(['-l', choice, '-f', 'qcow2', name], new ObjectList(), messages);
    return openExports({ messages, signal: new AbortController().signal }, graph, args);
  };
  try {
    await createImage(graph, { filename: name, format: 'qcow2', size: 1 << 20 });
    const disk = await graph.open(name, { format: 'qcow2', writable: true });
    await disk.write(0, new Uint8Array(512).fill(1));
    await disk.snapshots.create('x');
    await disk.resize(2 << 20);
    await disk.write(0, new Uint8Array(512).fill(2));
    await disk.close();
    const exports = await opened('snapshot.name=x');
    const [first] = exports;
    expect([first?.disk.writable, first?.disk.length]).toEqual([false, 1 << 20]);
    expect((await first?.disk.read(0, 512))?.every((byte) => byte === 1)).toBe(true);
    await closeExports(exports);
    await expect(opened('y')).rejects.toThrow("Failed to load snapshot: Can't find snapshot");
    const given = (snapshot: string) => new GivenOptions(new Map([['load-snapshot', snapshot]]), [name]);
    const request = { name, imageOpts: false, writable: true, warn: () => {} };
    const shown = await openAtSnapshot({ messages }, graph, given('x'), request);
    expect([shown.writable, shown.length, (await shown.read(0, 1))[0]]).toEqual([false, 1 << 20, 1]);
    await shown.close();
    await expect(openAtSnapshot({ messages }, graph, given('y'), request)).rejects.toThrow("Can't find snapshot");
    const overlay = openAtSnapshot({ messages }, graph, given('x'), { ...request, snapshot: true });
    await expect(overlay).rejects.toThrow('-l and --snapshot exclude each other');
    expect(graph.nodes()).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
