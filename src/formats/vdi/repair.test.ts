/** Mending (V-46). */
import { describe, expect, test } from 'vitest';
import { PATH } from '../../../tests/support/sim-disks.ts';
import { FREE } from '../../../tests/support/vdi-bytes.ts';
import {
  BLOCK,
  block,
  blocks,
  checked,
  field,
  hostHolding,
  hostWith,
  openOn,
  stored,
} from '../../../tests/support/vdi-on-sim.ts';
import type { RepairMode } from '../../core/driver.ts';
import type { SimHost } from '../../testing/index.ts';

/** Repairs, and looks again after opening anew. */
async function mend(host: SimHost, mode: RepairMode) {
  const disk = await openOn(host, { checkOnly: true });
  const first = await checked(disk, mode);
  await disk.close();
  const again = await openOn(host, { writable: false });
  const second = await checked(again);
  await again.close();
  return { first: first.report, findings: first.findings, second: second.report };
}

describe('a place that several blocks name', () => {
  test('is copied for all but the first', async () => {
    const host = hostWith({ map: [1, 0, 1, 1] });
    const { first, second } = await mend(host, 'all');
    expect([first.corruptionsFixed, first.corruptions, second.corruptions, second.leaks]).toEqual([2, 0, 0, 0]);
    expect(stored(host).content()).toEqual(blocks(2, 1, 2, 2));
    expect(stored(host)).toMatchObject({ map: [1, 0, 2, 3], allocated: 4, problems: [] });
  });

  test('is kept for the first also when its copy goes to a place before it', async () => {
    // Slot 1 is free, so the copy of 2 goes there; 2 is the last in use and must not be cut off.
    const host = hostWith({ map: [2, 0, 2, FREE], slots: 3 });
    const { second } = await mend(host, 'all');
    expect(second).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(stored(host).content()).toEqual(blocks(3, 1, 3, 0));
  });

  test('stays as it is when only leaks are to be mended', async () => {
    const host = hostWith({ map: [1, 0, 1], slots: 3 });
    const before = host.contents(PATH);
    const { first, second } = await mend(host, 'leaks');
    expect([first.corruptionsFixed, first.leaksFixed]).toEqual([0, 0]);
    expect(second.corruptions).toBeGreaterThan(0);
    expect(host.contents(PATH)).toEqual(before);
  });
});

describe('an entry that is too large', () => {
  test('is dropped when the file has nothing there', async () => {
    const host = hostWith({ map: [0, 700, 1], slots: 2 });
    const { findings, second } = await mend(host, 'all');
    expect(findings[0]).toBe('ERROR: block index 1 too large, is 700');
    expect(second.corruptions).toBe(0);
    expect(stored(host)).toMatchObject({ map: [0, FREE, 1], allocated: 2 });
  });

  test('is moved to a place that can be named when the file has its data', async () => {
    const host = hostWith({ map: [5, FREE, 0], slots: 6 });
    const { second } = await mend(host, 'all');
    expect(second).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(stored(host).content()).toEqual(blocks(6, 0, 1));
  });
});

describe('a file that ends too early', () => {
  test('is completed where it ends in a block, which keeps what is there', async () => {
    const whole = hostWith({ map: [0, 1, FREE] }).contents(PATH);
    const host = hostHolding(whole.slice(0, whole.length - 1000));
    const { first, second } = await mend(host, 'all');
    expect([first.corruptionsFixed, second.corruptions]).toEqual([first.corruptionsFixed || 1, 0]);
    const expected = blocks(1, 2, 0);
    expected.fill(0, 2 * BLOCK - 1000, 2 * BLOCK);
    expect(stored(host).content()).toEqual(expected);
  });

  test('loses the blocks that it does not have', async () => {
    const whole = hostWith({ map: [2, 0, 1] }).contents(PATH);
    const host = hostHolding(whole.slice(0, whole.length - 2 * BLOCK));
    const { second } = await mend(host, 'all');
    expect(second).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(stored(host)).toMatchObject({ map: [FREE, 0, FREE], allocated: 1 });
  });
});

describe('the count', () => {
  test.each([0, 1, 3, 9, 0xffffffff])('of %d becomes that of the blocks, under leaks too', async (allocated) => {
    const host = hostWith({ map: [1, 0, FREE, FREE] }, { allocated });
    const { first, second } = await mend(host, 'leaks');
    expect([first.corruptionsFixed, second.corruptions, second.leaks]).toEqual([1, 0, 0]);
    expect(stored(host).allocated).toBe(2);
  });
});

describe('leaks', () => {
  test('are filled from the end, and the file ends behind the last block', async () => {
    const host = hostWith({ map: [3, FREE, 5, 0, FREE, FREE], slots: 6 }, { allocated: 6 });
    const { first, second } = await mend(host, 'leaks');
    expect([first.leaksFixed, second.leaks, second.corruptions]).toEqual([3, 0, 0]);
    expect(stored(host)).toMatchObject({ map: [1, FREE, 2, 0, FREE, FREE], allocated: 3 });
    expect(stored(host).content()).toEqual(blocks(4, 0, 6, 1, 0, 0));
    expect(host.contents(PATH).length).toBe(0x400 + 3 * BLOCK);
  });
});

test('the logical geometry gets sectors of 512 bytes', async () => {
  const host = hostWith({ map: [0] }, { logicalSectorSize: 0 });
  const { first, second } = await mend(host, 'all');
  expect([first.corruptionsFixed, second.corruptions, field(host, 'logicalSectorSize')]).toEqual([1, 0, 512]);
});

test('after a repair the same session can write', async () => {
  const host = hostWith({ map: [0, 0, FREE] });
  const disk = await openOn(host, { checkOnly: true });
  await expect(disk.write(0, block(9))).rejects.toMatchObject({ code: 'EIO' });
  await checked(disk, 'all');
  await disk.write(BLOCK, block(9));
  await disk.close();
  expect(stored(host).content()).toEqual(blocks(1, 9, 0));
});
