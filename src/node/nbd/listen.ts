/** Listening for NBD clients on unix sockets, TCP ports and inherited descriptors (N-12, N-113 to N-116). */
import { fstatSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import type { ByteStream } from '../../core/byte-stream.ts';
import { BlockError, codeOf, errorText } from '../../core/errors.ts';
import { DEFAULT_PORT } from '../../nbd/protocol.ts';
import { peerOf, socketStream } from './socket-stream.ts';
import { bindFailure, clearSocketPath, listenAtPath } from './unix-socket.ts';

/** Where clients are waited for. */
export type ListenAddress =
  /** `mode`: permission bits. Default 0600. */
  | { readonly kind: 'unix'; readonly path: string; readonly mode?: number | undefined }
  /** `host`: an address or name. Default: the loopback of both families. `port` 0: any that is free. */
  | { readonly kind: 'tcp'; readonly host?: string | undefined; readonly port: number }
  /** A listening socket that this process was started with. */
  | { readonly kind: 'fd'; readonly fd: number };

/** A place where clients are waited for. */
export interface Listening {
  /** Where clients find the export of this name. */
  uri(exportName: string, tls: boolean): string;
  /** No further clients come. Removes a unix socket's file. */
  close(): Promise<void>;
}

/** Both families get one port; so often another is tried when that of the first is taken in the second. */
const PORT_TRIES = 16;
const BACKLOG = 511;

/** Resolves when clients can connect. Throws BlockError. */
export async function listen(address: ListenAddress, accept: (stream: ByteStream) => void): Promise<Listening> {
  const make = () => {
    // Without half-open sockets all answers that take time are lost to a client that has ended its half (N-80).
    const options = { allowHalfOpen: true, noDelay: true, keepAlive: true };
    const server = createServer(options, (socket) => accept(accepted(socket)));
    // Too many files open: those that are served go on.
    server.on('drop', () => {});
    return server;
  };
  if (address.kind === 'unix') return listenUnix(make(), address);
  if (address.kind === 'fd') return listenFd(make(), address.fd);
  return listenTcp(make, address);
}

function accepted(socket: Socket): ByteStream {
  return socketStream(socket, peerOf(socket));
}

async function listenUnix(
  server: Server,
  { path, mode = 0o600 }: Extract<ListenAddress, { kind: 'unix' }>,
): Promise<Listening> {
  await clearSocketPath(path);
  await started(server, () => listenAtPath(server, path, mode)).catch((error: unknown) => {
    throw bindFailure(path, reasonOf(error));
  });
  const query = `?socket=${encodeURIComponent(path).replaceAll('%2F', '/')}`;
  return {
    uri: (name, tls) => `${tls ? 'nbds' : 'nbd'}+unix:///${encodeURIComponent(name)}${query}`,
    close: () => stopped([server]),
  };
}

async function listenFd(server: Server, fd: number): Promise<Listening> {
  // Where nobody passed it, it is one of Node's own.
  if (!isSocket(fd)) throw new BlockError('EINVAL', `Socket activation failed: descriptor ${fd} is not a socket`);
  await started(server, () => server.listen({ fd }));
  const address = server.address();
  const port = typeof address === 'object' && address !== null && 'port' in address ? address.port : undefined;
  const uri = (name: string, tls: boolean) => {
    if (port !== undefined) return tcpUri('localhost', port, name, tls);
    const path = typeof address === 'string' ? address : '';
    return `${tls ? 'nbds' : 'nbd'}+unix:///${encodeURIComponent(name)}?socket=${encodeURIComponent(path)}`;
  };
  return { uri, close: () => stopped([server]) };
}

function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}

async function listenTcp(
  make: () => Server,
  { host, port }: Extract<ListenAddress, { kind: 'tcp' }>,
): Promise<Listening> {
  if (host !== undefined) {
    const server = make();
    await bind(server, host, port);
    return tcp([server], host === '0.0.0.0' || host === '::' ? 'localhost' : host);
  }
  for (let tries = 1; ; tries++) {
    const first = make();
    await bind(first, '127.0.0.1', port);
    const second = make();
    try {
      await bind(second, '::1', portOf(first));
      return tcp([first, second], 'localhost');
    } catch (error) {
      // This machine has no IPv6.
      if (['EADDRNOTAVAIL', 'EAFNOSUPPORT'].includes(systemCode(error))) return tcp([first], 'localhost');
      await stopped([first]);
      if (port !== 0 || tries === PORT_TRIES) throw error;
    }
  }
}

async function bind(server: Server, host: string, port: number): Promise<void> {
  await started(server, () => server.listen({ host, port, backlog: BACKLOG, ipv6Only: host === '::1' })).catch(
    (cause: unknown) => {
      const system = systemCode(cause);
      const inUse = system === 'EADDRINUSE';
      const unknown = system === 'ENOTFOUND' || system === 'EAI_AGAIN';
      const unbound = inUse ? 'Failed to find an available port' : 'Failed to bind socket';
      const text = unknown ? `address resolution failed for ${host}:${port}` : unbound;
      throw new BlockError(inUse ? 'EBUSY' : codeOf(cause), `${text}: ${reasonOf(cause)}`, { cause });
    },
  );
}

function tcp(servers: readonly Server[], host: string): Listening {
  const [first] = servers;
  const port = first === undefined ? 0 : portOf(first);
  return { uri: (name, tls) => tcpUri(host, port, name, tls), close: () => stopped(servers) };
}

function tcpUri(host: string, port: number, name: string, tls: boolean): string {
  const shown = host.includes(':') ? `[${host}]` : host;
  return `${tls ? 'nbds' : 'nbd'}://${shown}${port === DEFAULT_PORT ? '' : `:${port}`}/${encodeURIComponent(name)}`;
}

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function started(server: Server, start: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      // Later ones, such as a lack of descriptors, end no one who is served.
      server.on('error', () => {});
      resolve();
    });
    start();
  });
}

async function stopped(servers: readonly Server[]): Promise<void> {
  // What is accepted already goes on, so that nothing is waited for.
  for (const server of servers) server.close();
}

const SYSTEM_TEXTS: ReadonlyMap<string, string> = new Map([
  ['EADDRINUSE', 'Address already in use'],
  ['EADDRNOTAVAIL', 'Cannot assign requested address'],
  ['EAFNOSUPPORT', 'Address family not supported by protocol'],
  ['ENOTFOUND', 'Name or service not known'],
  ['EAI_AGAIN', 'Temporary failure in name resolution'],
]);

function systemCode(error: unknown): string {
  const { code, cause } = error as { code?: unknown; cause?: { code?: unknown } };
  return String(cause?.code ?? code ?? '');
}

function reasonOf(error: unknown): string {
  return SYSTEM_TEXTS.get(systemCode(error)) ?? errorText(codeOf(error));
}
