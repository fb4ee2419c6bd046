/** Secrets by id. They belong to a host, as other objects that disks are opened with do; no secret is ever in a message. */
import { BlockError } from '../core/errors.ts';
import type { Host } from '../core/host.ts';

/** Each secret's bytes, or its text, which stands for its UTF-8. */
export type SecretsById = Map<string, Uint8Array | string>;

const secretsOfHosts = new WeakMap<Host, SecretsById>();

/** The secrets that disks opened on `host` can name, by `encrypt.key-secret` for example. */
export function secrets(host: Host): SecretsById {
  let found = secretsOfHosts.get(host);
  if (found === undefined) {
    found = new Map();
    secretsOfHosts.set(host, found);
  }
  return found;
}

/** A passphrase, as its bytes. Throws BlockError EINVAL where nothing has the id, or it is no text. */
export function passphraseOf(host: Host, id: string): Uint8Array {
  const secret = secrets(host).get(id);
  if (secret === undefined) throw new BlockError('EINVAL', `No secret with id '${id}'`);
  if (typeof secret === 'string') return new TextEncoder().encode(secret);
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(secret);
  } catch {
    throw new BlockError('EINVAL', `Data from secret ${id} is not valid UTF-8`);
  }
  return secret;
}
