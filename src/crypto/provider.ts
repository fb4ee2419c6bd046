/** Where ciphers and hashes come from. */
import type { Host } from '../core/host.ts';
import type { HostCrypto } from '../core/host-crypto.ts';

/** The host's own, or those in JavaScript, loaded when first needed. */
export async function cryptoOf(host: Host): Promise<HostCrypto> {
  return host.crypto === undefined ? (await import('./portable.ts')).portableCrypto : host.crypto();
}
