/** Connections to servers, as the engine asks its host for them. */
import type { ByteStream } from './byte-stream.ts';

/** Where a server is. */
export type ServerAddress =
  | { readonly type: 'inet'; readonly host: string; readonly port: number }
  /** A path, or with a leading NUL a name in Linux's abstract namespace. */
  | { readonly type: 'unix'; readonly path: string }
  /** A connected socket that this process has open. */
  | { readonly type: 'fd'; readonly fd: number };

/** Options of a connection to a server. */
export interface ConnectOptions {
  /** Gives up; the connection is then closed. */
  readonly signal?: AbortSignal | undefined;
}

/** The client's side of TLS, with credentials. */
export interface ClientTls {
  /** Shared keys prove the server too, so that no name is needed for it. */
  readonly kind: 'x509' | 'psk';
  /**
   * Encrypts a stream of which nothing is read. `hostname`: whom the certificate must be for. Throws BlockError, and then
   * the stream is closed.
   */
  start(stream: ByteStream, hostname: string | undefined): Promise<ByteStream>;
}

/** Which credentials a name asks for; without any file, the host's default ones. */
export interface ClientTlsRequest {
  /** A folder of PEM files. */
  readonly certificates?: string | undefined;
  readonly pskFile?: string | undefined;
  /** Who the client is, with shared keys. Default: whom this process runs as. */
  readonly username?: string | undefined;
  /** Default true. */
  readonly verifyPeer?: boolean | undefined;
}
