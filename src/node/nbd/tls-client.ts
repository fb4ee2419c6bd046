/** The client's side of TLS (N-101, N-102, N-106). */
import { existsSync } from 'node:fs';
import { isIP } from 'node:net';
import { homedir, userInfo } from 'node:os';
import { join } from 'node:path';
import { type ConnectionOptions, checkServerIdentity, connect, rootCertificates, type TLSSocket } from 'node:tls';
import type { ByteStream } from '../../core/byte-stream.ts';
import { BlockError } from '../../core/errors.ts';
import type { ClientTls, ClientTlsRequest } from '../../core/host-network.ts';
import { releaseSocket, socketStream } from './socket-stream.ts';
import { loadPsk, loadX509, type TlsCredentials } from './tls-credentials.ts';
import { PSK_CIPHERS } from './tls-server.ts';

type X509Credentials = Extract<TlsCredentials, { kind: 'x509' }>;

/** Throws BlockError for credentials that are not a client's. */
export function clientTls(credentials: TlsCredentials): ClientTls {
  if (credentials.endpoint !== 'client') {
    throw new BlockError('EINVAL', 'Expected TLS credentials for a client endpoint');
  }
  return {
    kind: credentials.kind,
    async start(stream, hostname) {
      if (credentials.kind === 'psk') return encrypt(stream, pskOptions(credentials));
      return encrypt(stream, x509Options(credentials, hostname));
    },
  };
}

/** Credentials of a URI (N-4, N-101): what it names, else libnbd's folders, else the authorities the system trusts. */
export async function loadClientTls(request: ClientTlsRequest): Promise<ClientTls> {
  const { certificates, pskFile, username, verifyPeer } = request;
  if (certificates !== undefined && pskFile !== undefined) {
    throw new BlockError('EINVAL', 'tls-certificates and tls-psk-file cannot be used together');
  }
  if (pskFile !== undefined) {
    return clientTls(await loadPsk(pskFile, { endpoint: 'client', username: username ?? userInfo().username }));
  }
  const options = { endpoint: 'client', ...(verifyPeer !== undefined && { verifyPeer }) } as const;
  const folder = certificates ?? defaultFolders().find((each) => existsSync(join(each, 'ca-cert.pem')));
  if (folder !== undefined) return clientTls(await loadX509(folder, options));
  const ca = Buffer.from(rootCertificates.join('\n'));
  const none = { cert: undefined, key: undefined, crl: undefined, dhparam: undefined, passphrase: undefined };
  return clientTls({ kind: 'x509', endpoint: 'client', ca, ...none, verifyPeer: verifyPeer ?? true });
}

function defaultFolders(): string[] {
  if (process.getuid?.() === 0) return ['/etc/pki/libnbd'];
  return ['.pki', '.config/pki'].map((folder) => join(homedir(), folder, 'libnbd'));
}

function pskOptions({ keys, username }: Extract<TlsCredentials, { kind: 'psk' }>): ConnectionOptions {
  const psk = keys.get(username) ?? Buffer.alloc(0);
  return {
    ciphers: PSK_CIPHERS,
    pskCallback: () => ({ psk, identity: username }),
    // A server may answer with a certificate instead: whoever signed it, it does not prove that the server has the key.
    ca: [],
    checkServerIdentity(_name, certificate) {
      if (Object.keys(certificate).length === 0) return undefined;
      return new BlockError('EACCES', 'The server has a certificate, and not the shared key');
    },
  };
}

function x509Options(credentials: X509Credentials, hostname: string | undefined): ConnectionOptions {
  const { ca, cert, key, crl, passphrase, verifyPeer } = credentials;
  if (verifyPeer && hostname === undefined) throw new BlockError('EINVAL', 'No hostname for certificate validation');
  return {
    ca,
    ...(cert && { cert }),
    ...(key && { key }),
    ...(crl && { crl }),
    ...(passphrase !== undefined && { passphrase }),
    rejectUnauthorized: verifyPeer,
    ...(hostname !== undefined && isIP(hostname) === 0 && { servername: hostname }),
    checkServerIdentity(_name, certificate) {
      if (hostname === undefined || checkServerIdentity(hostname, certificate) === undefined) return undefined;
      return new BlockError('EACCES', `Certificate does not match the hostname ${hostname}`);
    },
  };
}

function encrypt(stream: ByteStream, options: ConnectionOptions): Promise<ByteStream> {
  const raw = releaseSocket(stream);
  if (raw === undefined) return Promise.reject(new BlockError('ENOTSUP', 'The stream cannot be encrypted'));
  raw.on('error', () => {});
  return new Promise((resolve, reject) => {
    const fail = (cause?: Error) => {
      raw.destroy();
      reject(cause instanceof BlockError ? cause : new BlockError('EACCES', failureText(cause), { cause }));
    };
    let socket: TLSSocket;
    try {
      socket = connect({ socket: raw, allowHalfOpen: true, minVersion: 'TLSv1.2', ...options } as ConnectionOptions);
    } catch (error) {
      // Keys that do not fit, or are no keys.
      fail(error as Error);
      return;
    }
    const ended = () => fail();
    socket.once('error', fail);
    socket.once('close', ended);
    socket.once('secureConnect', () => {
      socket.off('error', fail);
      socket.off('close', ended);
      resolve(socketStream(socket, stream.peer));
    });
  });
}

function failureText(error: Error | undefined): string {
  return `TLS handshake failed: ${error?.message ?? 'the server ended the connection'}`;
}
