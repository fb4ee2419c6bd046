/** Writes that must be durable, as an NBD server is told of them (N-40, N-47). */
import { describe, expect, test } from 'vitest';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { Command, CommandFlag, TransmissionFlag } from '../../src/nbd/protocol.ts';
import { FakeServer, faked, hostWith } from '../support/nbd-client.ts';

const { hasFlags, sendFlush, sendFua, sendWriteZeroes } = TransmissionFlag;
const WITHOUT_FUA = hasFlags | sendFlush | sendWriteZeroes;

/** What a server of these flags is asked for when a write and zeroes must be durable. */
async function requestsOf(flags: number): Promise<(readonly [number, number])[]> {
  const server = new FakeServer({ flags, structured: false });
  const graph = new Graph({ host: hostWith(async () => server.clientEnd), drivers: DRIVERS });
  const opening = graph.open({ driver: 'raw', file: { driver: 'nbd', path: '/s' } }, { writable: true });
  await server.shake();
  const disk = await opening;
  const seen: (readonly [number, number])[] = [];
  const work = [
    () => disk.write(0, new Uint8Array(8).fill(1), { fua: true }),
    () => disk.writeZeroes(4096, 4096, { fua: true }),
    () => disk.write(0, new Uint8Array(8).fill(2)),
  ];
  for (const change of work) {
    let ended = false;
    const changing = change().finally(() => {
      ended = true;
    });
    while (!ended) {
      const request = await server.request();
      if (request.command === Command.write) await server.take(request.length);
      seen.push([request.command, request.flags & CommandFlag.fua]);
      server.simple(request);
      // The next request of a change follows its last reply without anything in between.
      for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
    }
    await changing;
  }
  server.stream.destroy();
  return seen;
}

describe('writes and zeroes that must be durable', () => {
  const { write, writeZeroes, flush } = Command;

  test('a server with FUA is told so, and not asked to flush', async () => {
    expect(await requestsOf(WITHOUT_FUA | sendFua)).toEqual([
      [write, 1],
      [writeZeroes, 1],
      [write, 0],
    ]);
  });

  test('one without is asked to flush behind them', async () => {
    expect(await requestsOf(WITHOUT_FUA)).toEqual([
      [write, 0],
      [flush, 0],
      [writeZeroes, 0],
      [flush, 0],
      [write, 0],
    ]);
  });

  test('a client that asks a server without FUA for it is refused before it is sent (N-131)', async () => {
    const { client, server } = await faked({ flags: WITHOUT_FUA });
    await expect(client.writeZeroes(0, 4096, { fua: true })).rejects.toMatchObject({ code: 'ENOTSUP' });
    expect(server.input.length).toBe(0);
    await client.close();
  });
});
