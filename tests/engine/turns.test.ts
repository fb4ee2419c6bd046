/** Immediate answers come to an end, so that timers and signals get their turn. */
import { expect, test } from 'vitest';
import type { Disk } from '../../src/core/disk.ts';
import { gate, graphOf, Storage, storageProtocol } from './storage.ts';

const PAGE = 4096;
const WORKERS = 4;

async function opened(): Promise<{ disk: Disk; storage: Storage; held: ReturnType<typeof gate> }> {
  const storage = new Storage(WORKERS * PAGE);
  storage.without = [];
  const held = gate();
  storage.before = held.wait;
  const disk = await graphOf([storageProtocol(storage)]).open({ driver: 'store' }, { writable: true });
  return { disk, storage, held };
}

/** Lets everything run that needs no more than promises. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

test.for([
  ['read', (disk: Disk, page: Uint8Array, at: number) => disk.read(at, page)],
  ['write', (disk: Disk, page: Uint8Array, at: number) => disk.write(at, page)],
] as const)('%s: many in a row at once, then all wait for one', async ([kind, request]) => {
  const { disk, storage, held } = await opened();
  let answers = 0;
  let going = true;
  const work = Array.from({ length: WORKERS }, async (_, worker) => {
    const page = new Uint8Array(PAGE);
    while (going) {
      await request(disk, page, worker * PAGE);
      answers++;
    }
  });
  await settle();
  const count = (which: string) => storage.calls.filter((call) => call.kind === which).length;
  expect(held.waiting).toBe(WORKERS);
  expect(answers).toBe(count(`${kind}Now`));
  expect(answers).toBeGreaterThan(500);
  expect(answers).toBeLessThan(2000);
  going = false;
  held.open();
  await Promise.all(work);
  expect(answers).toBe(count(`${kind}Now`) + WORKERS);
  const page = new Uint8Array(PAGE);
  storage.forget();
  await request(disk, page, 0);
  expect(storage.calls.map((call) => call.kind)).toEqual([`${kind}Now`]);
  await disk.close();
});

test('a request that fails gives new credit too', async () => {
  const { disk, storage } = await opened();
  const page = new Uint8Array(PAGE);
  storage.before = () => {
    throw new TypeError('broken');
  };
  let answers = 0;
  const untilBroken = async () => {
    for (;;) {
      await disk.read(0, page);
      answers++;
    }
  };
  await expect(untilBroken()).rejects.toThrow('broken');
  expect(answers).toBeGreaterThan(500);
  const first = answers;
  await expect(untilBroken()).rejects.toThrow('broken');
  expect(answers).toBe(2 * first);
  storage.before = () => {};
  await disk.close();
});
