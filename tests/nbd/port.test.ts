/** A server over a MessageChannel, as pages have them. */
import { MessageChannel } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { ByteQueue } from '../../src/nbd/byte-queue.ts';
import { type PortLike, portStream } from '../../src/nbd/port-stream.ts';
import { Command, Option } from '../../src/nbd/protocol.ts';
import { clientFlags, encodeRequest, optionFrame } from '../../src/nbd/wire.ts';
import { nameAndInfos, served, settled } from '../support/nbd.ts';

const MIB = 1 << 20;

function connection() {
  const { port1, port2 } = new MessageChannel();
  const stream = portStream(port2 as unknown as PortLike);
  const input = new ByteQueue();
  let wake = () => {};
  let closed = false;
  stream.listen({
    data(bytes) {
      input.push(bytes);
      wake();
    },
    end: () => stream.end(),
    close() {
      closed = true;
      wake();
    },
  });
  const take = async (count: number) => {
    for (;;) {
      const taken = input.take(count);
      if (taken !== undefined) return taken;
      if (closed) throw new TypeError('closed');
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  const send = (bytes: Uint8Array) => stream.write([bytes], () => {});
  return { port1: port1 as unknown as PortLike, stream, take, send, isClosed: () => closed };
}

test('handshake, a write, reads of more than waits to be sent, and the end', async () => {
  const { server, disk } = await served();
  const { port1, stream, take, send, isClosed } = connection();
  server.accept(portStream(port1, 'page'));
  await take(18);
  send(clientFlags(3));
  send(optionFrame(Option.go, nameAndInfos('')));
  await take(20 + 12 + 20 + 14 + 20);
  const request = (command: number, offset: number, length: number) =>
    send(encodeRequest({ command, flags: 0, cookieHigh: 0, cookieLow: 1, offset, length }, false));
  request(Command.write, 100, 3);
  send(Uint8Array.of(1, 2, 3));
  expect([...(await take(16)).subarray(4, 8)]).toEqual([0, 0, 0, 0]);
  expect([...(await disk.read(99, 5))]).toEqual([0, 1, 2, 3, 0]);
  stream.pause();
  for (let each = 0; each < 40; each++) request(Command.read, 0, MIB);
  request(Command.disconnect, 0, 0);
  stream.resume();
  for (let each = 0; each < 40; each++) {
    const reply = await take(16 + MIB);
    expect([...reply.subarray(4, 8), ...reply.subarray(16 + 99, 16 + 104)]).toEqual([0, 0, 0, 0, 0, 1, 2, 3, 0]);
  }
  await expect(take(1)).rejects.toThrow('closed');
  expect(isClosed()).toBe(true);
  while (server.stats().connections > 0) await settled();
});

test.each([null, undefined, 7, 'what', {}, { taken: 'all' }, { taken: Number.NaN }, { taken: -1 }, new ArrayBuffer(8)])(
  'N-160: a message that is none ends the connection: %j',
  async (message) => {
    const { server } = await served();
    const { port1, port2 } = new MessageChannel();
    server.accept(portStream(port1 as unknown as PortLike));
    port2.postMessage(message);
    while (server.stats().connections > 0) await settled();
    port2.close();
  },
);

const BUFFER = new Uint8Array(8 * MIB);

test.each([
  ['whole buffers', BUFFER, 17],
  ['parts of buffers, of which all comes', BUFFER.subarray(0, 1), 17],
  ['nothing, very often', new Uint8Array(0), 600_000],
])('N-160: who sends without end to one that has paused is cut off: %s', async (_, piece, count) => {
  const { port1, port2 } = new MessageChannel();
  const stream = portStream(port1 as unknown as PortLike);
  let bytes = 0;
  const closed = new Promise<void>((resolve) => {
    stream.listen({
      data(part) {
        bytes += part.length;
      },
      end() {},
      close: () => resolve(),
    });
  });
  stream.pause();
  for (let each = 0; each < count; each++) port2.postMessage(piece);
  await closed;
  expect(bytes).toBe(0);
  port2.close();
});
