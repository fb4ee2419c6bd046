import { expect, test } from 'vitest';
import type { Host } from '../core/host.ts';
import type { HostCrypto } from '../core/host-crypto.ts';
import { ITERATIONS_MIN, iterationsFor } from './calibrate.ts';

const COST = { hash: 'sha256', length: 64 } as const;

/** A machine that makes 1000 iterations in a millisecond, and waits for a processor besides: so long each time, then no more. */
function machine(...waits: number[]): [Host, HostCrypto] {
  let now = 0;
  const crypto = {
    async pbkdf2({ iterations }: { iterations: number }) {
      now += iterations / 1000 + (waits.shift() ?? 0);
      return new Uint8Array(64);
    },
  };
  return [{ clock: { now: () => now } } as unknown as Host, crypto as unknown as HostCrypto];
}

test.each([[], [500], [70, 70], [0, 300, 0, 5000]])(
  'Q-CRYPT-4: iterations are as many as the time allows, whatever else the machine does: waits %j',
  async (...waits) => {
    const [host, crypto] = machine(...waits);
    expect(Math.abs((await iterationsFor(host, crypto, COST, 2000, 2 ** 25)) - 2_000_000)).toBeLessThan(10);
  },
);

test('Q-CRYPT-4: at least 1000, also on a clock that stands still; no more than a header can be opened with', async () => {
  const [host, crypto] = machine();
  expect(await iterationsFor(host, crypto, COST, 0, 2 ** 25)).toBe(ITERATIONS_MIN);
  const still = { clock: { now: () => 5 } } as unknown as Host;
  expect(await iterationsFor(still, crypto, COST, 2000, 2 ** 25)).toBe(ITERATIONS_MIN);
  await expect(iterationsFor(host, crypto, COST, 1e6, 2 ** 25)).rejects.toMatchObject({ code: 'ERANGE' });
});
