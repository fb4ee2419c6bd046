/** The system's ciphers, with keys derived by few iterations whatever is asked for: for tests that open an image many times. */
import type { HostCrypto } from '../../src/core/host-crypto.ts';
import { nodeCrypto } from '../../src/node/crypto.ts';

export function quickCrypto(): HostCrypto {
  const crypto = nodeCrypto();
  return { ...crypto, pbkdf2: (request) => crypto.pbkdf2({ ...request, iterations: Math.min(request.iterations, 2) }) };
}
