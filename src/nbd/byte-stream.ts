/** What NBD needs to know of a connection. */
export type { ByteStream, ByteStreamListener } from '../core/byte-stream.ts';

/** An identity that TLS has proved: a certificate's distinguished name, or the user of a shared key. */
export interface TlsIdentity {
  readonly kind: 'x509' | 'psk';
  readonly name: string;
}
