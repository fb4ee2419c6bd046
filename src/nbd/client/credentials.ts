/** TLS credentials by id. They belong to a host, as other objects that disks are opened with do (N-102). */
import { BlockError } from '../../core/errors.ts';
import type { Host } from '../../core/host.ts';
import type { ClientTls } from '../../core/host-network.ts';

/** Loads the credentials of an id; called each time a disk is opened with them. */
export type TlsCredentialsById = Map<string, () => Promise<ClientTls>>;

const credentialsOfHosts = new WeakMap<Host, TlsCredentialsById>();

/** The credentials that disks opened on `host` can name by `tls-creds`. */
export function tlsCredentials(host: Host): TlsCredentialsById {
  let found = credentialsOfHosts.get(host);
  if (found === undefined) {
    found = new Map();
    credentialsOfHosts.set(host, found);
  }
  return found;
}

/** Throws BlockError EINVAL where nothing has the id. */
export async function credentialsOf(host: Host, id: string): Promise<ClientTls> {
  const load = tlsCredentials(host).get(id);
  if (load === undefined) throw new BlockError('EINVAL', `No TLS credentials with id '${id}'`);
  return load();
}
