/** Opens an export, over TLS where the options say so. */
import type { DriverNode, OpenContext } from '../../core/driver.ts';
import { addContext, BlockError, errorText } from '../../core/errors.ts';
import type { Host } from '../../core/host.ts';
import type { ClientTls } from '../../core/host-network.ts';
import { BASE_ALLOCATION } from '../protocol.ts';
import { addressText, type NamedAddress, withPort } from './address.ts';
import { NbdClient } from './client.ts';
import type { StartTls } from './conversation.ts';
import { credentialsOf } from './credentials.ts';
import { exportNode } from './node.ts';
import { type TargetOptions, targetOf } from './target-options.ts';

export interface NbdOptions extends TargetOptions {
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

export async function openExport(context: OpenContext<NbdOptions>): Promise<DriverNode> {
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
}

async function openClient(
  { options, host, signal, namedByImage }: OpenContext<NbdOptions>,
  address: NamedAddress,
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
    signal: eitherOf(signal, host.interrupted),
    interrupted: host.interrupted,
  });
}

function eitherOf(one: AbortSignal | undefined, other: AbortSignal | undefined): AbortSignal | undefined {
  return one === undefined || other === undefined ? (one ?? other) : AbortSignal.any([one, other]);
}

async function connect(host: Host, address: NamedAddress, signal: AbortSignal | undefined) {
  if (host.connect === undefined) throw new BlockError('ENOTSUP', 'This host has no connections to servers');
  try {
    return await host.connect(await withPort(address, host.servicePort), { signal });
  } catch (error) {
    signal?.throwIfAborted();
    // What names and descriptors lead nowhere is told as it is.
    const nowhere = /^(address resolution failed|File descriptor)/;
    if (error instanceof BlockError && nowhere.test(error.message)) throw error;
    throw addContext(`Failed to connect to '${addressText(address)}'`, error);
  }
}

/** Undefined: without TLS. Throws BlockError for credentials that cannot be used. */
async function tlsOf(
  options: NbdOptions,
  address: NamedAddress,
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
    // Never plain text where someone thought of encryption. A URI may name a user without it (N-1).
    const [unused] = [certificates, pskFile, verifyPeer].filter((each) => each !== undefined);
    if (unused !== undefined) throw new BlockError('EINVAL', 'Options for TLS need tls=on');
    return undefined;
  }
  if (namedByImage && (certificates !== undefined || pskFile !== undefined)) {
    throw new BlockError('EACCES', 'An image may not name files with keys');
  }
  if (host.clientTls === undefined) throw new BlockError('ENOTSUP', 'This host has no TLS');
  return host.clientTls({ certificates, pskFile, username, verifyPeer });
}
