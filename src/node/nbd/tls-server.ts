/** The server's side of TLS (N-100, N-104, N-105, N-107). */
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import type { ByteStream } from '../../core/byte-stream.ts';
import { BlockError } from '../../core/errors.ts';
import type { ServerTls, TlsIdentity } from '../../nbd/server/session.ts';
import { releaseSocket, socketStream } from './socket-stream.ts';
import type { TlsCredentials } from './tls-credentials.ts';

/** GnuTLS offers shared keys with hashes of 256 bits only. */
export const PSK_CIPHERS =
  'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384:DHE-PSK-AES128-GCM-SHA256:PSK';

/** Throws BlockError for credentials that are not a server's. */
export function serverTls(credentials: TlsCredentials, { required }: { readonly required: boolean }): ServerTls {
  if (credentials.endpoint !== 'server') {
    throw new BlockError('EINVAL', 'Expected TLS credentials for a server endpoint');
  }
  // Made once, so that unusable keys are told of at the start.
  prove(credentials);
  return { required, start: (stream) => start(stream, credentials) };
}

function prove(credentials: TlsCredentials): void {
  try {
    // Of these Node says nothing.
    if (credentials.kind === 'x509' && credentials.dhparam?.includes('DH PARAMETERS-----') === false) {
      throw new TypeError('there are no DH parameters in dh-params.pem');
    }
    createServer(optionsOf(credentials, () => {}));
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new BlockError('EINVAL', `Unable to use the TLS credentials: ${text}`, { cause });
  }
}

function optionsOf(credentials: TlsCredentials, named: (user: string) => void): TlsOptions {
  const common = { allowHalfOpen: true, minVersion: 'TLSv1.2' } as const;
  if (credentials.kind === 'psk') {
    return {
      ...common,
      ciphers: PSK_CIPHERS,
      pskCallback(_socket, user) {
        const key = credentials.keys.get(user);
        if (key === undefined) return null;
        named(user);
        return key;
      },
    };
  }
  const { ca, cert, key, crl, dhparam, passphrase, verifyPeer } = credentials;
  return {
    ...common,
    ca,
    ...(cert && { cert }),
    ...(key && { key }),
    ...(crl && { crl }),
    dhparam: dhparam ?? 'auto',
    ...(passphrase !== undefined && { passphrase }),
    requestCert: verifyPeer,
    rejectUnauthorized: verifyPeer,
  };
}

/**
 * A server of TLS that listens nowhere is given the raw socket: a TLSSocket made by hand would serve a client whose
 * certificate is from a foreign authority.
 */
function start(
  stream: ByteStream,
  credentials: TlsCredentials,
): Promise<{ readonly stream: ByteStream; readonly identity: TlsIdentity | undefined }> {
  const raw = releaseSocket(stream);
  if (raw === undefined) return Promise.reject(new BlockError('ENOTSUP', 'The stream cannot be encrypted'));
  raw.on('error', () => {});
  // Whoever leaves in the middle has not just ended its half.
  raw.allowHalfOpen = false;
  if (raw.readableLength > 0) {
    raw.destroy();
    return Promise.reject(new BlockError('EINVAL', 'plain text after starttls'));
  }
  return new Promise((resolve, reject) => {
    let user: string | undefined;
    const server = createServer(
      optionsOf(credentials, (name) => {
        user = name;
      }),
    );
    const fail = (error: Error, socket: TLSSocket) => {
      raw.destroy();
      reject(new BlockError('EIO', failureText(error, socket.authorizationError), { cause: error }));
    };
    server.once('tlsClientError', fail);
    server.once('secureConnection', (socket) => {
      socket.allowHalfOpen = true;
      resolve({ stream: socketStream(socket, stream.peer), identity: identityOf(socket, user) });
    });
    server.emit('connection', raw);
  });
}

/** What GnuTLS says of certificates, by OpenSSL's codes; all others mean that the authority is not ours. */
const CERTIFICATE_TEXTS: ReadonlyMap<string, string> = new Map([
  ['CERT_HAS_EXPIRED', 'The certificate has expired'],
  ['CERT_NOT_YET_VALID', 'The certificate is not yet activated'],
  ['CERT_REVOKED', 'The certificate has been revoked'],
]);

/** `refused`: why the client's certificate is, by OpenSSL's code. */
function failureText(error: Error, refused: unknown): string {
  const { code, reason } = error as NodeJS.ErrnoException & { readonly reason?: string };
  if (code === 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE') return 'Verify failed: No certificate was found.';
  if (refused) return CERTIFICATE_TEXTS.get(String(refused)) ?? "The certificate hasn't got a known issuer";
  // OpenSSL's whole message has a thread's number, places in its source and line ends.
  return `TLS handshake failed: ${reason ?? error.message}`;
}

/** The distinguished name in the order in which it is encoded, as QEMU compares it. */
function identityOf(socket: TLSSocket, user: string | undefined): TlsIdentity | undefined {
  if (user !== undefined) return { kind: 'psk', name: user };
  const subject = socket.authorized ? socket.getPeerX509Certificate()?.subject : undefined;
  return subject === undefined ? undefined : { kind: 'x509', name: subject.split('\n').join(',') };
}
