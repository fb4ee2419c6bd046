/**
 * Hostile clients (N-160): bytes of any kind before and after GO. The server answers or leaves; it neither throws nor
 * keeps more than its limits, and then serves the next client as ever.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { viewOf } from '../../src/bytes/big-endian.ts';
import { SeededRandom } from '../../src/bytes/random.ts';
import { Command, Option } from '../../src/nbd/protocol.ts';
import { clientFlags, encodeRequest, optionFrame } from '../../src/nbd/wire.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { metaQuery, nameAndInfos, type RawClient, served, settled } from '../support/nbd.ts';

const ROUNDS = longMode ? 100_000 : 3000;
/** Clients that one server has before it is asked whether it still serves. */
const BATCH = 50;
const INTERESTING = [0, 1, 2, 4, 511, 512, 4096, 65535, 65536, 2 ** 20, 2 ** 25, 2 ** 25 + 1, 2 ** 31, 2 ** 32 - 1];

function validConversation(random: SeededRandom): Uint8Array[] {
  const extended = random.below(3) === 0;
  const pieces = [clientFlags(3)];
  const structured = random.below(2) === 0;
  if (structured) pieces.push(optionFrame(Option.structuredReply, new Uint8Array(0)));
  if (extended) pieces.push(optionFrame(Option.extendedHeaders, new Uint8Array(0)));
  pieces.push(optionFrame(Option.list, new Uint8Array(0)));
  pieces.push(optionFrame(Option.setMetaContext, metaQuery('', ['base:allocation', 'qemu:allocation-depth'])));
  pieces.push(optionFrame(Option.info, nameAndInfos('', [1, 2, 3])));
  pieces.push(optionFrame(random.below(8) === 0 ? Option.exportName : Option.go, nameAndInfos('', [3])));
  for (let count = random.below(6); count > 0; count--) {
    const command = random.below(10);
    const length = pick(random, INTERESTING);
    const payload = command === Command.write && length <= 65536 ? new Uint8Array(length) : new Uint8Array(0);
    const flags = (command === Command.write && extended ? 32 : 0) | (random.below(4) === 0 ? random.below(64) : 0);
    const offset = pick(random, INTERESTING);
    pieces.push(encodeRequest({ command, flags, cookieHigh: 0, cookieLow: count, offset, length }, extended), payload);
  }
  return pieces;
}

function pick<T>(random: SeededRandom, values: readonly T[]): T {
  return values[random.below(values.length)] as T;
}

/** Bytes changed, numbers put in place of others, parts cut, doubled or swapped. */
function mutate(random: SeededRandom, pieces: Uint8Array[]): Uint8Array {
  if (random.below(3) === 0) pieces.splice(random.below(pieces.length), random.below(2));
  if (random.below(4) === 0) pieces.push(pick(random, pieces));
  let bytes = Uint8Array.from(Buffer.concat(pieces));
  for (let count = random.below(4); count > 0 && bytes.length > 8; count--) {
    const at = random.below(bytes.length - 4);
    const kind = random.below(3);
    if (kind === 0) bytes[at] = random.below(256);
    else if (kind === 1) viewOf(bytes).setUint32(at, pick(random, INTERESTING));
    else bytes = Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(at + random.below(8))]);
  }
  return random.below(4) === 0 ? bytes.subarray(0, random.below(bytes.length + 1)) : bytes;
}

test(`${ROUNDS} hostile clients`, async () => {
  const random = new SeededRandom(testSeed);
  const tree = { driver: 'memory', size: 1 << 20 };
  for (let round = 0; round < ROUNDS; round += BATCH) {
    const { client, server, clock } = await served({ tree, maxConnections: 0, export: { allocationDepth: true } });
    const clients: RawClient[] = [];
    for (let each = 0; each < BATCH; each++) {
      const hostile = client();
      const bytes = mutate(random, validConversation(random));
      const cut = random.below(bytes.length + 1);
      hostile.send(bytes.subarray(0, cut));
      hostile.send(bytes.subarray(cut));
      if (random.below(2) === 0) hostile.end();
      else if (random.below(4) === 0) hostile.stream.fail();
      clients.push(hostile);
    }
    await settled();
    const good = await client().connect();
    expect((await good.read(0, 512)).length).toBe(512);
    await clock.pass(20_000);
    // Who haggles no more is gone, who is in transmission may stay.
    for (const hostile of clients) expect(hostile.receivedBytes).toBeLessThan(256 << 20);
    void server.close({ hard: true });
    await settled();
    expect(server.stats().connections).toBe(0);
  }
});

test('bytes of any kind', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 }),
      fc.boolean(),
      async (pieces, after) => {
        const { client, server } = await served();
        const hostile = after ? await client().connect() : client();
        for (const piece of pieces) hostile.send(piece);
        hostile.end();
        await settled();
        expect(hostile.closed).not.toBe('no');
        hostile.stream.fail();
        await settled();
        expect(server.stats().connections).toBe(0);
      },
    ),
    { numRuns: longMode ? 5000 : 200 },
  );
});
