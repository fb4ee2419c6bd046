/** Driver `nbd`: an export of an NBD server as a disk (N-1 to N-6). */
import { defineProtocol, type OpenContext } from '../../core/driver.ts';
import { addContext, BlockError, errorText } from '../../core/errors.ts';
import type { Host } from '../../core/host.ts';
import type { ClientTls } from '../../core/host-network.ts';
import { type OptionTree, option, parseOptions } from '../../core/options.ts';
import { addressText, type NbdTarget, nbdName, type ServerAddress } from './address.ts';
import { NbdClient } from './client.ts';
import type { StartTls } from './conversation.ts';
import { credentialsOf } from './credentials.ts';
import { BASE_ALLOCATION, exportNode } from './node.ts';
import { nameOptions, parseServer, type TargetOptions, targetOf } from './target-options.ts';

interface NbdOptions extends TargetOptions {
  readonly 'tls-creds': string | undefined;
  readonly 'tls-hostname': string | undefined;
  readonly 'reconnect-delay': number;
  readonly 'open-timeout': number;
  readonly 'x-dirty-bitmap': string | undefined;
  readonly 'meta-context': string | undefined;
  readonly tls: boolean;
  readonly 'tls-username': string | undefined;
  readonly 'tls-certificates': string | undefined;
  readonly 'tls-psk-file': string | undefined;
  readonly 'tls-verify-peer': boolean | undefined;
}

const text = (help: string) => option.text<string | undefined>({ help, fallback: undefined });
const beyond = (help: string) => option.text<string | undefined>({ help, fallback: undefined, beyond: true });

const OPTIONS = {
  server: option.nested<ServerAddress | undefined>(
    'where the server is: type=inet with host and port, type=unix with path, type=fd with str',
    parseServer,
  ),
  host: text('host name or address of a server on TCP, instead of server'),
  port: text('its TCP port (default 10809)'),
  path: text('path of a unix socket, instead of server'),
  export: option.text({ help: 'name of the export', fallback: '' }),
  'tls-creds': text('id of the tls-creds object to encrypt with'),
  'tls-hostname': text('whom the certificate of the server must be for (default: host)'),
  'reconnect-delay': option.number({
    help: 'seconds that requests wait for a lost server to come back, before they fail',
    fallback: 0,
  }),
  'open-timeout': option.number({ help: 'seconds to wait at opening for a server that is not there yet', fallback: 0 }),
  'x-dirty-bitmap': text(`context whose extents are shown as block status, in place of ${BASE_ALLOCATION}`),
  'meta-context': beyond('the same'),
  tls: option.boolean({ help: 'encrypt, with the credentials below or default ones', fallback: false, beyond: true }),
  'tls-username': beyond('who the client is, with shared keys'),
  'tls-certificates': beyond('folder of certificates'),
  'tls-psk-file': beyond('file of shared keys'),
  'tls-verify-peer': option.boolean<boolean | undefined>({
    help: 'whether the certificate of the server must be valid (default on)',
    fallback: undefined,
    beyond: true,
  }),
};

export const nbd = defineProtocol<NbdOptions>({
  name: 'nbd',
  summary: 'A disk on an NBD server, over TCP or a unix socket',
  prefixes: ['nbd', 'nbd+tcp', 'nbd+unix', 'nbd+vsock', 'nbds', 'nbds+tcp', 'nbds+unix', 'nbds+vsock'],
  reusable: true,
  options: OPTIONS,
  strongOptions: [
    ...['server', 'host', 'port', 'path', 'export', 'tls-creds', 'tls-hostname'],
    ...['tls', 'tls-username', 'tls-certificates', 'tls-psk-file', 'tls-verify-peer'],
  ],
  parseFilename: nameOptions,
  exactFilename,
  async open(context) {
    const { options, host, writable, autoReadOnly } = context;
    const { address, export: name } = targetOf(options);
    const wanted = options['x-dirty-bitmap'] ?? options['meta-context'];
    const client = await openClient(context, address, name, wanted ?? BASE_ALLOCATION);
    try {
      if (writable && client.facts.readOnly && !autoReadOnly) throw new BlockError('EACCES', errorText('EACCES'));
      const known = [...client.agreement.contexts.keys()][0];
      if (wanted !== undefined && known === undefined) {
        throw new BlockError('EINVAL', `The server has no context '${wanted}'`);
      }
      const cut = client.agreement.size - client.facts.size;
      if (cut > 0) {
        host.warn(`warning: the last ${cut} bytes of '${addressText(address)}' cannot be read: its blocks are longer`);
      }
      return exportNode(client, { context: known, readOnly: client.facts.readOnly });
    } catch (error) {
      await client.close();
      throw error;
    }
  },
});

async function openClient(
  { options, host, signal, namedByImage }: OpenContext<NbdOptions>,
  address: ServerAddress,
  name: string,
  context: string,
): Promise<NbdClient> {
  const startTls = await tlsOf(options, address, host, namedByImage);
  return NbdClient.open({
    clock: host.clock,
    connect: (given) => connect(host, address, given),
    startTls,
    handshake: { export: name, contexts: [context] },
    openTimeoutMs: options['open-timeout'] * 1000,
    reconnectDelayMs: options['reconnect-delay'] * 1000,
    signal,
  });
}

async function connect(host: Host, address: ServerAddress, signal: AbortSignal | undefined) {
  if (host.connect === undefined) throw new BlockError('ENOTSUP', 'This host has no connections to servers');
  try {
    return await host.connect(address, { signal });
  } catch (error) {
    signal?.throwIfAborted();
    // What names lead nowhere is told as it is.
    if (error instanceof BlockError && error.message.startsWith('address resolution failed')) throw error;
    throw addContext(`Failed to connect to '${addressText(address)}'`, error);
  }
}

/** Undefined: without TLS. Throws BlockError for credentials that cannot be used. */
async function tlsOf(
  options: NbdOptions,
  address: ServerAddress,
  host: Host,
  namedByImage: boolean,
): Promise<StartTls | undefined> {
  const tls = await clientTlsOf(options, host, namedByImage);
  if (tls === undefined) return undefined;
  const hostname = options['tls-hostname'] ?? (address.type === 'inet' ? address.host : undefined);
  return (stream) => tls.start(stream, hostname);
}

async function clientTlsOf(options: NbdOptions, host: Host, namedByImage: boolean): Promise<ClientTls | undefined> {
  const { 'tls-creds': id, tls, 'tls-certificates': certificates, 'tls-psk-file': pskFile } = options;
  if (id !== undefined) return credentialsOf(host, id);
  const { 'tls-username': username, 'tls-verify-peer': verifyPeer } = options;
  if (!tls) {
    // Never plain text where someone thought of encryption.
    const [unused] = [certificates, pskFile, username, verifyPeer].filter((each) => each !== undefined);
    if (unused !== undefined) throw new BlockError('EINVAL', 'Options for TLS need tls=on');
    return undefined;
  }
  if (namedByImage && (certificates !== undefined || pskFile !== undefined)) {
    throw new BlockError('EACCES', 'An image may not name files with keys');
  }
  if (host.clientTls === undefined) throw new BlockError('ENOTSUP', 'This host has no TLS');
  return host.clientTls({ certificates, pskFile, username, verifyPeer });
}

/** Undefined for options that lead nowhere. */
function exactFilename(tree: OptionTree): string | undefined {
  try {
    const { values } = parseOptions<NbdOptions>(OPTIONS, tree);
    const keys: Partial<Record<'username' | 'tlsCertificates' | 'tlsPskFile' | 'tlsHostname', string | undefined>> = {
      username: values['tls-username'],
      tlsCertificates: values['tls-certificates'],
      tlsPskFile: values['tls-psk-file'],
      tlsHostname: values['tls-hostname'],
    };
    const given = Object.fromEntries(Object.entries(keys).filter(([, value]) => value !== undefined));
    const verify = values['tls-verify-peer'];
    const tls: Omit<NbdTarget, 'address' | 'export'> = values.tls
      ? { tls: 'require', ...given, ...(verify !== undefined && { tlsVerifyPeer: verify }) }
      : { tls: 'off' };
    return nbdName({ ...targetOf(values), ...tls });
  } catch {
    return undefined;
  }
}
