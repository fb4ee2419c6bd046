/** What the entries offer for graphs with blkdebug and blkverify in them. */
import { expect, test } from 'vitest';
import * as library from '../index.ts';
import { blkdebugOf, blkverifyOf, MismatchError, SimHost } from './index.ts';

const SIZE = 1 << 20;

async function mirrored() {
  const graph = new library.Graph({ host: new SimHost(), drivers: library.DRIVERS });
  const memory = { driver: 'memory', size: SIZE };
  const test = { driver: 'blkdebug', 'node-name': 'faulty', image: memory };
  const disk = await graph.open({ driver: 'blkverify', raw: memory, test }, { writable: true });
  return { disk, faults: blkdebugOf(graph.lookUp('faulty')), sides: blkverifyOf(disk) };
}

test('a dropped write is found by comparing all of both sides, and told to who listens (BV-8, BV-16)', async () => {
  const { disk, faults, sides } = await mirrored();
  const told: MismatchError[] = [];
  sides.setOnMismatch((error) => told.push(error));
  await sides.verify();
  const rule = faults.add({ event: 'none', ioTypes: ['write'], action: 'drop', after: 1 });
  for (let i = 0; i < 3; i++) await disk.write(i * 65536, new Uint8Array(4096).fill(7));
  expect(faults.rules()).toMatchObject([{ id: rule, hits: 2 }]);
  await expect(sides.verify()).rejects.toBeInstanceOf(MismatchError);
  expect(told.map(({ details }) => details.firstDifference)).toEqual([65536]);
  expect(sides.counts()).toMatchObject({ mismatches: 1 });
  await disk.close();
});

test('both entries have the same', () => {
  expect([library.blkdebugOf, library.blkverifyOf, library.MismatchError]).toEqual([
    blkdebugOf,
    blkverifyOf,
    MismatchError,
  ]);
});
