/** How the client ends (N-139). */
import { describe, expect, test } from 'vitest';
import { ChunkType, Command } from '../../src/nbd/protocol.ts';
import { settled } from '../support/nbd.ts';
import { bytes, faked, Loopback } from '../support/nbd-client.ts';

function zeroes(offset: number, length: number): Uint8Array {
  return bytes(12, (view) => {
    view.setBigUint64(0, BigInt(offset));
    view.setUint32(8, length);
  });
}

describe('closing (N-139)', () => {
  test('waits for requests, then says goodbye', async () => {
    const { server, client } = await faked();
    const reading = client.read(0, new Uint8Array(4));
    const request = await server.request();
    const closing = client.close();
    await settled();
    expect(server.input.length).toBe(0);
    server.chunk(request, ChunkType.offsetHole, zeroes(0, 4));
    await reading;
    expect(await server.request()).toMatchObject({ command: Command.disconnect });
    await closing;
  });

  test('a server that does not close the connection is not waited for long', async () => {
    const { server, client, host } = await faked();
    await client.close();
    expect(host.clock.now()).toBe(1000);
    expect(server.clientEnd.closed).toBe(true);
  });

  test('our server ends the connection at once', async () => {
    const loop = await Loopback.start();
    const client = await loop.client();
    await client.close();
    expect(loop.host.clock.now()).toBe(0);
    expect(loop.server.stats().connections).toBe(0);
  });
});
