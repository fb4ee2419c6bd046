/** Where ciphers and hashes come from. */
import type { Host } from '../core/host.ts';
import type { HostCrypto, Pbkdf2Request } from '../core/host-crypto.ts';

/**
 * The host's own, or those in JavaScript, loaded when first needed. When `signal` is aborted, keys that are being derived
 * fail with its reason.
 */
export async function cryptoOf(host: Host, signal?: AbortSignal): Promise<HostCrypto> {
  const crypto = host.crypto === undefined ? (await import('./portable.ts')).portableCrypto : host.crypto();
  if (signal === undefined) return crypto;
  return { ...crypto, pbkdf2: (request) => derive(crypto, request, signal) };
}

/** Also where the host goes on, whoever waits is let go. */
async function derive(crypto: HostCrypto, request: Pbkdf2Request, signal: AbortSignal): Promise<Uint8Array> {
  signal.throwIfAborted();
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([crypto.pbkdf2({ ...request, signal }), aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
