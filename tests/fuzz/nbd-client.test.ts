/**
 * A server's bytes, changed at random on their way to our client (N-134, N-160): it fails with errors of ours, never waits for
 * what cannot come, never leaves in a buffer what was not sent, and ends.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import type { ByteStream, ByteStreamListener } from '../../src/core/byte-stream.ts';
import { BlockError } from '../../src/core/errors.ts';
import { NbdClient } from '../../src/nbd/client/client.ts';
import type { ClientHandshakeOptions } from '../../src/nbd/client/handshake.ts';
import { SeededRandom } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { settled } from '../support/nbd.ts';
import { Loopback, refuseConnection, streamPair } from '../support/nbd-client.ts';

const RUNS = longMode ? 100_000 : 3000;
const SIZE = 1 << 20;
/** About what a server sends in one session, bytes. */
const SPAN = 3000;

interface Mutation {
  readonly at: number;
  readonly kind: 'flip' | 'set' | 'insert' | 'drop' | 'end';
  readonly bytes: readonly number[];
}

const KINDS = ['flip', 'flip', 'set', 'set', 'set', 'insert', 'drop', 'end'] as const;
const TELLING = [0, 1, 0x7f, 0x80, 0xff];

function mutations(random: SeededRandom): Mutation[] {
  return Array.from({ length: random.between(1, 3) }, () => ({
    // Mostly in what is not the content of reads.
    at: random.below(random.below(3) === 0 ? SPAN : 400),
    kind: KINDS[random.below(KINDS.length)] ?? 'flip',
    bytes: Array.from({ length: random.between(1, 8) }, () =>
      random.below(2) === 0 ? random.below(256) : (TELLING[random.below(TELLING.length)] ?? 0),
    ),
  }));
}

/** Passes on what comes with the changes made, counted from the start of the stream. */
class Mangler implements ByteStream {
  readonly #inner: ByteStream;
  readonly #mutations: Mutation[];
  #passed = 0;

  constructor(inner: ByteStream, changes: readonly Mutation[]) {
    this.#inner = inner;
    this.#mutations = [...changes].sort((a, b) => a.at - b.at);
  }

  get peer(): string {
    return this.#inner.peer;
  }

  listen(listener: ByteStreamListener): void {
    this.#inner.listen({
      data: (bytes) => listener.data(this.#mangle(bytes)),
      end: () => listener.end(),
      close: (error) => listener.close(error),
    });
  }

  #mangle(bytes: Uint8Array): Uint8Array {
    const [first] = this.#mutations;
    if (first === undefined || first.at - this.#passed >= bytes.length) {
      this.#passed += bytes.length;
      return bytes;
    }
    const out = [...bytes];
    let shift = 0;
    for (let next = this.#mutations[0]; next !== undefined; next = this.#mutations[0]) {
      const at = Math.max(0, next.at - this.#passed + shift);
      if (at >= out.length) break;
      this.#mutations.shift();
      const [bit = 0] = next.bytes;
      if (next.kind === 'flip') out[at] = (out[at] ?? 0) ^ (1 << (bit & 7));
      else if (next.kind === 'set') out.splice(at, next.bytes.length, ...next.bytes.slice(0, out.length - at));
      else if (next.kind === 'insert') {
        out.splice(at, 0, ...next.bytes);
        shift += next.bytes.length;
      } else if (next.kind === 'drop') shift -= out.splice(at, next.bytes.length).length;
      else {
        out.length = at;
        queueMicrotask(() => this.#inner.destroy());
        break;
      }
    }
    this.#passed += bytes.length;
    return Uint8Array.from(out);
  }

  write(pieces: readonly Uint8Array[], done: () => void): void {
    this.#inner.write(pieces, done);
  }
  end(): void {
    this.#inner.end();
  }
  destroy(): void {
    this.#inner.destroy();
  }
  pause(): void {
    this.#inner.pause();
  }
  resume(): void {
    this.#inner.resume();
  }
}

const WAYS: readonly Partial<ClientHandshakeOptions>[] = [{}, { noExtendedHeaders: true }, { simpleReplies: true }];

let loop: Loopback;
beforeAll(async () => {
  loop = await Loopback.start({ driver: 'memory', size: SIZE }, { handshakeTimeoutMs: 0, maxConnections: 0 });
  // Some of it, so that replies have data and holes.
  await loop.disk.write(65536, new Uint8Array(65536).fill(0xaa));
});

/** A session with everything in it. Resolves when all of it has ended, well or not. */
async function session(changes: readonly Mutation[], way: Partial<ClientHandshakeOptions>): Promise<void> {
  let stream: ByteStream | undefined;
  const connect = async () => {
    if (stream !== undefined) refuseConnection();
    const [client, server] = streamPair();
    stream = new Mangler(client, changes);
    loop.server.accept(server);
    return stream;
  };
  const stop = new AbortController();
  const opening = NbdClient.open({
    clock: loop.host.clock,
    connect,
    handshake: { export: '', contexts: ['base:allocation'], ...way },
    signal: stop.signal,
  });
  const work = (async () => {
    const client = await opening;
    const stale = new Uint8Array(1000).fill(0x55);
    const requests = [
      client.read(65536, new Uint8Array(700)),
      client.read(0, stale).then(
        () => {},
        (error: unknown) => {
          expect(stale.every((byte) => byte === 0)).toBe(true);
          throw error;
        },
      ),
      client.write(0, new Uint8Array(16)),
      client.read(SIZE - 7000, new Uint8Array(7000)),
      client.blockStatus(0, SIZE),
      client.blockStatus(0, 4096, { one: true }),
      client.writeZeroes(4096, 4096),
      client.trim(8192, 4096),
      client.flush(),
    ];
    const outcomes = await Promise.allSettled(requests);
    await client.close();
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  })();
  let over = false;
  const ended = work.then(
    () => {
      over = true;
    },
    (error: unknown) => {
      over = true;
      if (!(error instanceof BlockError)) throw error;
    },
  );
  // A length that is now larger makes the client wait, rightly: until the server is gone.
  for (let turn = 0; turn < 15 && !over; turn++) await settled();
  if (!over) stream?.destroy();
  for (let turn = 0; turn < 15 && !over; turn++) await settled();
  if (!over) throw new TypeError('the client waits for what cannot come');
  await ended;
}

describe('a server whose bytes are changed on their way', () => {
  test.each(WAYS)('unchanged, all of it works: %j', async (way) => {
    await session([], way);
  });

  test(`${RUNS} sessions with changes`, { timeout: longMode ? 3_600_000 : 120_000 }, async () => {
    const random = new SeededRandom(testSeed);
    for (let run = 0; run < RUNS; run++) {
      const changes = mutations(random);
      const way = WAYS[run % WAYS.length] ?? {};
      await session(changes, way).catch((error: unknown) => {
        throw new Error(`run ${run}, ${JSON.stringify({ changes, way })}: ${String(error)}`, { cause: error });
      });
    }
  });

  test('bytes that mean nothing at all', async () => {
    const random = new SeededRandom(testSeed + 1);
    for (let run = 0; run < 300; run++) {
      const [client, server] = streamPair();
      const opening = NbdClient.open({
        clock: loop.host.clock,
        connect: async () => client,
        handshake: { export: '', contexts: [] },
      });
      const noise = Uint8Array.from({ length: random.between(0, 600) }, () => random.below(256));
      server.write([noise], () => server.destroy());
      await expect(opening).rejects.toBeInstanceOf(BlockError);
    }
  });
});
