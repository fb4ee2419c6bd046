/** Which snapshot a command line means, and lists of them. */
import { expect, test } from 'vitest';
import { snapshotLines } from './output/snapshot-list.ts';
import { snapshotChoice } from './snapshots.ts';

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
