/** The options of the driver that say which server and export (N-5, N-6), and names as such options. */
import { BlockError } from '../../core/errors.ts';
import { type OptionTree, parseBoolOption } from '../../core/options.ts';
import { DEFAULT_PORT } from '../protocol.ts';
import {
  checkExportName,
  inetAddress,
  type NamedAddress,
  type NbdTarget,
  parseLegacyName,
  parseNbdUri,
} from './address.ts';

/** `undefined`: not given. */
export interface TargetOptions {
  readonly server: NamedAddress | undefined;
  readonly host: string | undefined;
  readonly port: string | undefined;
  readonly path: string | undefined;
  readonly export: string;
}

/** Throws BlockError in the words of N-6. */
export function addressOf({ server, host, port, path }: TargetOptions): NamedAddress {
  if (path !== undefined && host !== undefined) {
    throw new BlockError('EINVAL', 'path and host may not be used at the same time');
  }
  if (path !== undefined) {
    if (port !== undefined) throw new BlockError('EINVAL', 'port may not be used without host');
    return { type: 'unix', path };
  }
  if (host !== undefined) return inetAddress(host, port ?? String(DEFAULT_PORT));
  if (server === undefined) throw new BlockError('EINVAL', 'NBD server address missing');
  return server;
}

/** What a unix socket's address has room for, bytes. */
const ABSTRACT_BYTES = 108;

/** Keys that an address may have besides; all but `abstract` and `tight` make no difference to us. */
const OPTIONAL_KEYS: ReadonlySet<string> = new Set([
  'ipv4',
  'ipv6',
  'to',
  'numeric',
  'keep-alive',
  'mptcp',
  'tight',
  'abstract',
]);
const KEYS: Readonly<Record<string, readonly string[]>> = {
  inet: ['host', 'port'],
  unix: ['path'],
  fd: ['str'],
  vsock: ['cid', 'port'],
};

/** `server.*`. Undefined when nothing is given. Throws BlockError. */
export function parseServer(tree: OptionTree): NamedAddress | undefined {
  const { type, ...rest } = tree;
  if (type === undefined && Object.keys(rest).length === 0) return undefined;
  if (type === undefined) throw new BlockError('EINVAL', "Parameter 'type' is missing");
  const keys = KEYS[String(type)];
  if (keys === undefined) throw new BlockError('EINVAL', `Parameter 'type' does not accept value '${type}'`);
  for (const key of keys) {
    if (rest[key] === undefined) throw new BlockError('EINVAL', `Parameter '${key}' is missing`);
  }
  for (const key of Object.keys(rest)) {
    if (!keys.includes(key) && !OPTIONAL_KEYS.has(key))
      throw new BlockError('EINVAL', `Parameter '${key}' is unexpected`);
  }
  const text = (key: string) => String(rest[key]);
  if (type === 'vsock') throw new BlockError('ENOTSUP', 'NBD over vsock is not supported');
  if (type === 'inet') return inetAddress(text('host'), text('port'));
  if (type === 'unix') {
    const on = (key: 'abstract' | 'tight', fallback: boolean) =>
      rest[key] === undefined ? fallback : parseBoolOption(rest[key], key);
    if (!on('abstract', false)) return { type: 'unix', path: text('path') };
    const name = `\0${text('path')}`;
    // One that is not tight is filled up with NULs.
    const missing = on('tight', true) ? 0 : ABSTRACT_BYTES - new TextEncoder().encode(name).length;
    return { type: 'unix', path: name + '\0'.repeat(Math.max(0, missing)) };
  }
  if (!/^\d{1,9}$/.test(text('str'))) throw new BlockError('EINVAL', `Unable to parse FD number ${text('str')}`);
  return { type: 'fd', fd: Number(text('str')) };
}

/** A URI or a name of the old form as options, so that they can be told apart from others and shown again. */
export function nameOptions(name: string): OptionTree {
  const target = /^nbd:(?!\/\/)/i.test(name) ? parseLegacyName(`nbd:${name.slice(4)}`) : parseNbdUri(name);
  const { address } = target;
  return {
    ...(address.type === 'unix' && { 'server.type': 'unix', 'server.path': address.path }),
    ...(address.type === 'inet' && {
      'server.type': 'inet',
      'server.host': address.host,
      'server.port': String(address.port),
    }),
    ...(target.export !== '' && { export: target.export }),
    ...(target.tls === 'require' && { tls: true }),
    ...(target.username !== undefined && { 'tls-username': target.username }),
    ...(target.tlsCertificates !== undefined && { 'tls-certificates': target.tlsCertificates }),
    ...(target.tlsPskFile !== undefined && { 'tls-psk-file': target.tlsPskFile }),
    ...(target.tlsHostname !== undefined && { 'tls-hostname': target.tlsHostname }),
    ...(target.tlsVerifyPeer !== undefined && { 'tls-verify-peer': target.tlsVerifyPeer }),
  };
}

/** What an option tree leads to. Throws BlockError. */
export function targetOf(options: TargetOptions): Pick<NbdTarget, 'address' | 'export'> {
  return { address: addressOf(options), export: checkExportName(options.export) };
}
