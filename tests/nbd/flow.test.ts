/** Order, durability, and what may be under way at once (N-73, N-74). */
import { describe, expect, test } from 'vitest';
import { Command } from '../../src/nbd/protocol.ts';
import { type ServedOptions, served, settled } from '../support/nbd.ts';

const MIB = 1 << 20;
const { read, flush, trim } = Command;
const FUA = 1;
const DF = 4;

async function transmitting(style: 'structured' = 'structured', options: ServedOptions = {}) {
  const setting = await served(options);
  const client = await setting.client().connect(style);
  return { ...setting, client };
}

describe('order and durability (N-73)', () => {
  test('replies go out as requests end', async () => {
    const { client, disk } = await transmitting();
    const flushed = later();
    disk.flush = () => flushed.promise.then(() => {});
    client.request(flush, { cookie: 1 });
    client.request(read, { length: 1, cookie: 2 });
    expect((await client.reply()).cookie).toBe(2);
    flushed.resolve(undefined);
    expect((await client.reply()).cookie).toBe(1);
  });

  test('FUA and flush: not answered until durable', async () => {
    const { client, disk } = await transmitting();
    const calls: string[] = [];
    const original = disk.write.bind(disk);
    disk.write = (offset, source, flags) => {
      calls.push(`write fua=${flags?.fua}`);
      return original(offset, source, flags);
    };
    disk.flush = async () => void calls.push('flush');
    client.write(0, new Uint8Array(4), 1, FUA);
    await client.reply();
    client.request(trim, { length: 4096, flags: FUA });
    await client.reply();
    client.request(flush, {});
    await client.reply();
    expect(calls).toEqual(['write fua=true', 'flush', 'flush']);
  });
});

function later(): { promise: Promise<unknown>; resolve: (value: unknown) => void } {
  let resolve: (value: unknown) => void = () => {};
  const promise = new Promise((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

describe('limits on what is under way (N-74)', () => {
  test('128 requests; then the input is not read', async () => {
    const { client, disk } = await transmitting();
    const gate = later();
    let begun = 0;
    disk.flush = async () => {
      begun++;
      await gate.promise;
    };
    for (let cookie = 0; cookie < 300; cookie++) client.request(flush, { cookie });
    await settled();
    expect([begun, client.stream.paused]).toEqual([128, true]);
    gate.resolve(undefined);
    const cookies = new Set<number>();
    while (cookies.size < 300) cookies.add((await client.reply()).cookie);
    expect([begun, client.stream.paused]).toEqual([300, false]);
  });

  test('64 MiB of payload', async () => {
    const { client, disk } = await transmitting('structured', { tree: { driver: 'null-co', size: 2 ** 30 } });
    const gate = later();
    let begun = 0;
    disk.tryReadNow = () => false;
    disk.read = (async (_offset: number, target: Uint8Array) => {
      begun++;
      await gate.promise;
      return target;
    }) as typeof disk.read;
    for (let cookie = 0; cookie < 5; cookie++) client.request(read, { length: 20 * MIB, cookie, flags: DF });
    await settled();
    expect([begun, client.stream.paused]).toEqual([3, true]);
    gate.resolve(undefined);
    for (let seen = 0; seen < 5; seen++) expect((await client.reply()).payload.length).toBe(20 * MIB + 8);
  });

  test('16 MiB that the client does not take', async () => {
    const { client, disk } = await transmitting();
    await disk.write(0, new Uint8Array(MIB).fill(1));
    client.stalled = true;
    for (let cookie = 0; cookie < 64; cookie++) client.request(read, { length: MIB, cookie });
    await settled();
    expect(client.stream.paused).toBe(true);
    expect(client.receivedBytes).toBeLessThanOrEqual(17.1 * MIB);
    client.unstall();
    for (let seen = 0; seen < 64; seen++) expect((await client.reply()).payload.length).toBe(MIB + 8);
  });
});
