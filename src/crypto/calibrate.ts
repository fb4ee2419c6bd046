/** How many iterations of PBKDF2 take a wanted time on this machine. */
import { BlockError } from '../core/errors.ts';
import type { Host } from '../core/host.ts';
import type { HashName, HostCrypto } from '../core/host-crypto.ts';

/** No key is derived by fewer. */
export const ITERATIONS_MIN = 1000;
/** A measurement this long is exact enough. */
const LONG_ENOUGH_MS = 60;
/** So many that are: the fastest counts, since others wait for processors at times, and weaker keys would come of it. */
const LONG_ONES = 3;
const FIRST_TRY = 1 << 14;
/** A clock that stands still at this many, as in simulations, tells nothing. */
const TRIES_MAX = 1 << 24;

export interface DerivationCost {
  readonly hash: HashName;
  /** Bytes derived. */
  readonly length: number;
}

/** Iterations in `milliseconds`, {@link ITERATIONS_MIN} at least. Throws BlockError ERANGE for more than `most`. */
export async function iterationsFor(
  { clock }: Host,
  crypto: HostCrypto,
  { hash, length }: DerivationCost,
  milliseconds: number,
  most: number,
): Promise<number> {
  const password = new TextEncoder().encode('calibration');
  const salt = new Uint8Array(32);
  let perMillisecond = 0;
  for (let iterations = FIRST_TRY, long = 0; long < LONG_ONES; ) {
    const start = clock.now();
    await crypto.pbkdf2({ hash, password, salt, iterations, length });
    const took = clock.now() - start;
    if (took === 0 || iterations >= TRIES_MAX) return ITERATIONS_MIN;
    perMillisecond = Math.max(perMillisecond, iterations / took);
    if (took < LONG_ENOUGH_MS) iterations *= 2;
    else long++;
  }
  const wanted = Math.floor(perMillisecond * milliseconds);
  if (wanted > most) {
    throw new BlockError('ERANGE', `PBKDF iterations ${wanted} too large to scale: Numerical result out of range`);
  }
  return Math.max(ITERATIONS_MIN, wanted);
}
