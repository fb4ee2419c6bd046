/// <reference lib="esnext.disposable" preserve="true" />
/** `serve`: disks for NBD clients, on a socket of this machine. */
import { resolve } from 'node:path';
import { Disk } from '../../core/disk.ts';
import { BlockError } from '../../core/errors.ts';
import type { Graph } from '../../core/graph.ts';
import type { BlockNode } from '../../core/node.ts';
import type { ExportOptions } from '../../nbd/server/export.ts';
import { NbdServer, type NbdServerOptions, type NbdServerStats } from '../../nbd/server/server.ts';
import { type ListenAddress, type Listening, listen } from './listen.ts';
import type { TlsCredentials } from './tls-credentials.ts';
import { serverTls } from './tls-server.ts';

/** A disk, or a node of a graph, which is then used by the server as one more user of it. */
export type Servable = Disk | { readonly node: BlockNode; readonly graph: Graph };

/** Options of {@link serve}: of the export, the server and the socket. */
export interface ServeOptions extends ExportOptions, Omit<NbdServerOptions, 'tls'> {
  /** A unix socket's file. */
  readonly socket?: string;
  /** Permission bits of that file. Default 0600. */
  readonly socketMode?: number;
  /** A TCP port; 0: any that is free. Default, without `socket`: 0. */
  readonly port?: number;
  /** The address or name to listen at. Default: this machine only, by IPv4 and IPv6. */
  readonly bind?: string;
  /** Clients must use TLS, with these credentials; `optional`: may. */
  readonly tls?: { readonly credentials: TlsCredentials; readonly optional?: boolean };
}

/** What is being served. */
export interface Serving extends AsyncDisposable {
  /** Where clients find the disk. */
  readonly uri: string;
  /** Further exports come and go here. */
  readonly server: NbdServer;
  /** Of an export by its name. */
  uriOf(exportName: string): string;
  stats(): NbdServerStats;
  /** Stops: see {@link NbdServer.close}. The disks stay open. */
  close(options?: { readonly hard?: boolean }): Promise<void>;
}

/**
 * Serves a disk: `await using served = await serve(disk, { name: 'backup' })`. It must stay open as long. Throws
 * BlockError.
 */
export async function serve(what: Servable, options: ServeOptions = {}): Promise<Serving> {
  const disk = what instanceof Disk ? what : await diskOn(what, options);
  const own = disk === what ? undefined : disk;
  const { tls } = options;
  let listening: Listening | undefined;
  const server = new NbdServer(disk.graph.host, {
    ...options,
    tls: tls && serverTls(tls.credentials, { required: tls.optional !== true }),
  });
  try {
    server.addExport(disk, options);
    listening = await listen(addressOf(options), (stream) => server.accept(stream));
  } catch (error) {
    await server.close({ hard: true });
    await own?.close();
    throw error;
  }
  const { uri, close: stopListening } = listening;
  const uriOf = (name: string) => uri(name, tls !== undefined);
  const close = async (how: { readonly hard?: boolean } = {}) => {
    await stopListening();
    await server.close(how);
    await own?.close();
  };
  return {
    uri: uriOf(options.name ?? ''),
    server,
    uriOf,
    stats: () => server.stats(),
    close,
    [Symbol.asyncDispose]: () => close(),
  };
}

function diskOn({ node, graph }: Exclude<Servable, Disk>, { readOnly }: ServeOptions): Promise<Disk> {
  return Disk.attach(graph, node, { writable: !(readOnly ?? !node.writable) });
}

function addressOf({ socket, socketMode, port, bind }: ServeOptions): ListenAddress {
  if (socket === undefined) return { kind: 'tcp', host: bind, port: checkedPort(port ?? 0) };
  if (port !== undefined || bind !== undefined) {
    throw new BlockError('EINVAL', 'Serve on a unix socket or on a TCP port, not on both');
  }
  return { kind: 'unix', path: resolve(socket), mode: socketMode };
}

function checkedPort(port: number): number {
  if (Number.isInteger(port) && port >= 0 && port <= 65535) return port;
  throw new BlockError('EINVAL', `Port ${port} is not between 0 and 65535`);
}
