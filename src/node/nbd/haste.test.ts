/** When a client's next request is waited for without sleep, and when not. */
import type { Socket } from 'node:net';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Haste } from './haste.ts';
import type { SocketCalls } from './socket-calls.ts';

/** Milliseconds; passes by each look for more. */
let time = 0;
const LOOK_MS = 0.005;
beforeEach(() => {
  vi.spyOn(performance, 'now').mockImplementation(() => time);
  // Other streams have been silent for long.
  time += 1000;
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const REQUEST = Uint8Array.of(1);

interface Client {
  /** From an answer to the next request, milliseconds. */
  gapMs: number;
  busy?: boolean;
  unsent?: number;
}

/** A connection whose client sends one request after the other. */
function connection(client: Client) {
  let due = time + client.gapMs;
  let looks = 0;
  let answered = 0;
  const calls: SocketCalls = {
    send: () => 0,
    receive(_fd, target) {
      looks++;
      time += LOOK_MS;
      if (time < due) return -1;
      target.set(REQUEST);
      return 1;
    },
    sendFile: () => 0,
    enlarge() {},
  };
  const socket = {
    destroyed: false,
    readableLength: 0,
    readableFlowing: true,
    writable: true,
    get writableLength() {
      return client.unsent ?? 0;
    },
  };
  const listener = {
    data() {
      answered++;
      due = time + client.gapMs;
      return true;
    },
    busy: () => client.busy === true,
    end() {},
    close() {},
  };
  const haste = new Haste(socket as Socket, -1, calls);
  return {
    /** The event loop sleeps until a request is there. Returns how many were answered, and how many looks it took. */
    turn() {
      [looks, answered] = [0, 0];
      time = Math.max(time, due) + 0.05;
      haste.receive(listener, REQUEST);
      return { looks, answered };
    },
  };
}

/** What a connection does in the long run. */
function later({ turn }: ReturnType<typeof connection>, turns = 300) {
  vi.useFakeTimers({ toFake: ['setImmediate'] });
  for (let each = 0; each < turns; each++) turn();
  return turn();
}

test.each([0.01, 0.05, 0.1])(
  'a client that goes on within %d ms is waited for, a turn of the event loop long',
  (gapMs) => {
    const { answered, looks } = later(connection({ gapMs }));
    expect(answered).toBeGreaterThan(0.2 / (gapMs + LOOK_MS));
    expect(looks * LOOK_MS).toBeLessThan(0.8);
  },
);

test.each([0.2, 0.5, 5, 1000])('one that takes %d ms is not: the processor has other work', (gapMs) => {
  expect(later(connection({ gapMs }))).toEqual({ looks: 1, answered: 1 });
});

test.each([
  ['while its requests are under way', { busy: true }],
  ['while answers wait to be sent', { unsent: 1 }],
])('nor %s: they go on by the event loop', (_when, state) => {
  expect(later(connection({ gapMs: 0.01, ...state }))).toMatchObject({ answered: expect.toSatisfy((n) => n <= 2) });
});

test('one that stops is waited for once, then hardly any more until it is quick again', () => {
  const client: Client = { gapMs: 0.05 };
  const quick = connection(client);
  later(quick);
  client.gapMs = 0.3;
  let looks = 0;
  for (let each = 0; each < 40; each++) looks += quick.turn().looks;
  expect(looks * LOOK_MS).toBeLessThan(3);
  client.gapMs = 0.05;
  expect(later(quick, 20).answered).toBeGreaterThan(4);
});

test('two clients at a time: neither is kept waiting for the other', () => {
  vi.useFakeTimers({ toFake: ['setImmediate'] });
  const [one, other] = [connection({ gapMs: 0.05 }), connection({ gapMs: 0.05 })];
  for (let each = 0; each < 50; each++) {
    one.turn();
    other.turn();
  }
  expect(one.turn().answered).toBeLessThanOrEqual(2);
});
