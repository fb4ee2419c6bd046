/** Where a server is, and names and options that say so (N-1 to N-6). */
import { BlockError } from '../../core/errors.ts';
import type { Host } from '../../core/host.ts';
import type { ServerAddress } from '../../core/host-network.ts';
import { DEFAULT_PORT, STRING_MAX } from '../protocol.ts';

export type { ServerAddress };

/** Where a server is, as it was said: a port may be the name of a service. */
export type NamedAddress =
  | Exclude<ServerAddress, { readonly type: 'inet' }>
  | { readonly type: 'inet'; readonly host: string; readonly port: number | string };

/** What a URI says, or an older name. */
export interface NbdTarget {
  readonly address: NamedAddress;
  readonly export: string;
  /** `off`; `require`: TLS or failure. */
  readonly tls: 'off' | 'require';
  readonly username?: string;
  /** Keys of the query (N-4). */
  readonly tlsCertificates?: string;
  readonly tlsPskFile?: string;
  readonly tlsHostname?: string;
  readonly tlsVerifyPeer?: boolean;
}

/** Scheme: whether it goes over a unix socket, and whether with TLS. */
const SCHEMES: ReadonlyMap<string, { readonly unix: boolean; readonly tls: boolean }> = new Map([
  ['nbd', { unix: false, tls: false }],
  ['nbd+tcp', { unix: false, tls: false }],
  ['nbds', { unix: false, tls: true }],
  ['nbds+tcp', { unix: false, tls: true }],
  ['nbd+unix', { unix: true, tls: false }],
  ['nbds+unix', { unix: true, tls: true }],
]);

const KEYS = new Set(['socket', 'tls-certificates', 'tls-psk-file', 'tls-hostname', 'tls-verify-peer', 'tls-type']);

function invalid(text: string): BlockError {
  return new BlockError('EINVAL', text);
}

/** Parses `nbd://HOST:PORT/EXPORT` and its relatives. Throws BlockError EINVAL, ENOTSUP for vsock. */
export function parseNbdUri(uri: string): NbdTarget {
  const parts = /^([A-Za-z][A-Za-z0-9+.-]*):(?:\/\/([^/?#]*))?([^?#]*)(?:\?([^#]*))?$/.exec(uri);
  if (parts === null) throw invalid(`Cannot parse the URI '${uri}'`);
  const [, rawScheme = '', authority, path = '', query] = parts;
  const scheme = rawScheme.toLowerCase();
  if (scheme === 'nbd+vsock' || scheme === 'nbds+vsock')
    throw new BlockError('ENOTSUP', 'NBD over vsock is not supported');
  const kind = SCHEMES.get(scheme);
  if (kind === undefined) throw invalid(`Unknown NBD URI scheme '${rawScheme}'`);
  const keys = parseQuery(query, uri);
  const name = exportName(path, uri);
  const { user, host, port } = parseAuthority(authority ?? '', uri);
  const socket = keys.get('socket');
  if (kind.unix !== (socket !== undefined)) {
    throw invalid(
      kind.unix ? `The URI '${uri}' has no socket` : `The URI '${uri}' is not one of a unix socket, but has one`,
    );
  }
  if (kind.unix && (host !== '' || port !== undefined)) {
    throw invalid(
      `The URI '${uri}' is one of a unix socket and has a host; tls-hostname says whom the certificate is for`,
    );
  }
  if (!kind.unix && host === '') throw invalid(`The URI '${uri}' has no host`);
  return {
    address: socket === undefined ? { type: 'inet', host, port: port ?? DEFAULT_PORT } : { type: 'unix', path: socket },
    export: name,
    tls: kind.tls ? 'require' : 'off',
    ...(user !== undefined && { username: user }),
    ...tlsKeys(keys, uri),
  };
}

function tlsKeys(keys: ReadonlyMap<string, string>, uri: string) {
  const type = keys.get('tls-type');
  if (type !== undefined && type !== 'x509' && type !== 'psk') {
    throw invalid(`The URI '${uri}' asks for TLS of type '${type}', which is not supported`);
  }
  const verify = keys.get('tls-verify-peer');
  if (verify !== undefined && verify !== '0' && verify !== '1') {
    throw invalid(`tls-verify-peer of the URI '${uri}' is neither 0 nor 1`);
  }
  const [certificates, psk, hostname] = ['tls-certificates', 'tls-psk-file', 'tls-hostname'].map((key) =>
    keys.get(key),
  );
  return {
    ...(certificates !== undefined && { tlsCertificates: certificates }),
    ...(psk !== undefined && { tlsPskFile: psk }),
    ...(hostname !== undefined && { tlsHostname: hostname }),
    ...(verify !== undefined && { tlsVerifyPeer: verify === '1' }),
  };
}

/** The path without its first slash (N-2). */
function exportName(path: string, uri: string): string {
  const name = decode(path.startsWith('/') ? path.slice(1) : path, uri);
  return checkExportName(name);
}

/** Throws BlockError EINVAL for a name that no export can have. */
export function checkExportName(name: string): string {
  if (name.includes('\0')) throw invalid('The name of an export holds a NUL');
  if (new TextEncoder().encode(name).length > STRING_MAX) {
    throw invalid(`The name of an export is longer than ${STRING_MAX} bytes`);
  }
  return name;
}

function decode(text: string, uri: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid(`The URI '${uri}' has an escape that is no valid UTF-8`);
  }
}

function parseAuthority(
  authority: string,
  uri: string,
): { user: string | undefined; host: string; port: number | undefined } {
  const at = authority.lastIndexOf('@');
  const user = at < 0 ? undefined : decode(authority.slice(0, at), uri);
  const rest = authority.slice(at + 1);
  const match = /^(?:\[([0-9A-Fa-f:.%]*)\]|([^:[\]]*))(?::(\d*))?$/.exec(rest);
  if (match === null) throw invalid(`Cannot parse the host of the URI '${uri}'`);
  const host = decode(match[1] ?? match[2] ?? '', uri);
  const port = match[3] === undefined || match[3] === '' ? undefined : parsePort(match[3]);
  return { user, host, port };
}

/** 1 to 65535; throws BlockError EINVAL. */
function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65535) throw invalid(`'${text}' is no port number from 1 to 65535`);
  return port;
}

function parseQuery(query: string | undefined, uri: string): Map<string, string> {
  const keys = new Map<string, string>();
  for (const item of (query ?? '').split(/[&;]/)) {
    if (item === '') continue;
    const equals = item.indexOf('=');
    const key = decode(equals < 0 ? item : item.slice(0, equals), uri);
    if (key.startsWith('x-')) continue;
    if (!KEYS.has(key)) throw invalid(`The URI '${uri}' has the unknown key '${key}'`);
    if (keys.has(key)) throw invalid(`The URI '${uri}' has the key '${key}' more than once`);
    keys.set(key, decode(equals < 0 ? '' : item.slice(equals + 1), uri));
  }
  return keys;
}

/** A port that is no number may be a service. Throws BlockError EINVAL for a number that is no port. */
export function inetAddress(host: string, port: string): NamedAddress {
  const [, number] = /^[ \t\n\v\f\r]*\+?(\d+)$/.exec(port) ?? [];
  return { type: 'inet', host, port: number === undefined ? port : parsePort(number) };
}

/** With the port of a service in place of its name. Throws BlockError EINVAL, in the system's words, for an unknown one. */
export async function withPort(
  address: NamedAddress,
  servicePort: Host['servicePort'] | undefined,
): Promise<ServerAddress> {
  if (address.type !== 'inet') return address;
  const { host, port: name } = address;
  const port = typeof name === 'number' ? name : await servicePort?.(name);
  if (port !== undefined) return { type: 'inet', host, port };
  throw invalid(`address resolution failed for ${host}:${name}: Servname not supported for ai_socktype`);
}

/** `nbd:HOST:PORT[:exportname=NAME]`, `nbd:unix:PATH[:exportname=NAME]` (N-5). */
export function parseLegacyName(name: string): NbdTarget {
  const rest = name.slice('nbd:'.length);
  const marker = ':exportname=';
  const cut = rest.indexOf(marker);
  const place = cut < 0 ? rest : rest.slice(0, cut);
  const exported = checkExportName(cut < 0 ? '' : rest.slice(cut + marker.length));
  if (place.startsWith('unix:')) {
    return { address: { type: 'unix', path: place.slice('unix:'.length) }, export: exported, tls: 'off' };
  }
  if (place === '') throw invalid('NBD server address missing');
  const inet = /^(?:\[([^\]]*)\]|([^:]*)):([^:]+)$/.exec(place);
  if (inet === null) throw invalid(`error parsing address '${place}'`);
  return { address: inetAddress(inet[1] ?? inet[2] ?? '', inet[3] ?? ''), export: exported, tls: 'off' };
}

/** As a node shows itself (N-5); undefined where no name leads there. */
export function nbdName({ address, export: exported, ...tls }: NbdTarget): string | undefined {
  // A URI's port is a number.
  if (address.type === 'fd' || (address.type === 'inet' && typeof address.port === 'string')) return undefined;
  const path = exported === '' ? '' : `/${encodeURIComponent(exported).replaceAll('%2F', '/')}`;
  const scheme = tls.tls === 'require' ? 'nbds' : 'nbd';
  const user = tls.username === undefined ? '' : `${encodeURIComponent(tls.username)}@`;
  const keys: string[] = address.type === 'unix' ? [`socket=${queryText(address.path)}`] : [];
  if (tls.tlsCertificates !== undefined) keys.push(`tls-certificates=${queryText(tls.tlsCertificates)}`);
  if (tls.tlsPskFile !== undefined) keys.push(`tls-psk-file=${queryText(tls.tlsPskFile)}`);
  if (tls.tlsHostname !== undefined) keys.push(`tls-hostname=${queryText(tls.tlsHostname)}`);
  if (tls.tlsVerifyPeer !== undefined) keys.push(`tls-verify-peer=${tls.tlsVerifyPeer ? 1 : 0}`);
  const query = keys.length === 0 ? '' : `?${keys.join('&')}`;
  if (address.type === 'unix') return `${scheme}+unix://${user}${path}${query}`;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${scheme}://${user}${host}:${address.port}${path}${query}`;
}

/** As it is, but for what a query cannot hold. */
function queryText(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what a name cannot hold
  return text.replace(/[\u0000-\u0020%&;#+\u007f]/g, (char) => encodeURIComponent(char));
}

/** For messages: `host:port` or the path. */
export function addressText(address: NamedAddress): string {
  if (address.type === 'fd') return `fd:${address.fd}`;
  return address.type === 'unix'
    ? address.path.replace(/\0+$/, '').replace('\0', '@')
    : `${address.host}:${address.port}`;
}
