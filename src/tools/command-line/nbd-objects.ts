/** Objects for NBD (N-102, N-105): TLS credentials and who may connect. What they name is read when it is asked for. */
import fs from 'node:fs';
import { asBlockError, BlockError, codeOf, errorText } from '../../core/errors.ts';
import type { Host } from '../../core/host.ts';
import type { JsonValue } from '../../core/json.ts';
import { type OptionValue, parseBoolOption } from '../../core/options.ts';
import { tlsCredentials } from '../../nbd/client/credentials.ts';
import { type Authorization, authorizeByRules, parseRules } from '../../nbd/server/authorize.ts';
import {
  credentialFiles,
  loadPsk,
  loadX509,
  type TlsCredentials,
  type TlsEndpoint,
} from '../../node/nbd/tls-credentials.ts';
import { Failure } from '../failure.ts';

const LIST_FILE = { filename: 'string', refresh: 'bool' };

/** Properties by type, and their own types as help lists them; those of lists may have further dotted parts. */
export const NBD_OBJECTS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'authz-list': { policy: 'QAuthZListPolicy', rules: 'QAuthZListRule' },
  // QEMU's documents have the one, some of its releases the other.
  'authz-list-file': LIST_FILE,
  'authz-listfile': LIST_FILE,
  'authz-simple': { identity: 'string' },
  'tls-creds-psk': {
    dir: 'string',
    endpoint: 'QCryptoTLSCredsEndpoint',
    priority: 'string',
    username: 'string',
    'verify-peer': 'bool',
  },
  'tls-creds-x509': {
    dir: 'string',
    endpoint: 'QCryptoTLSCredsEndpoint',
    passwordid: 'string',
    priority: 'string',
    'sanity-check': 'bool',
    'verify-peer': 'bool',
  },
};

export type ObjectProperties = { readonly [key: string]: JsonValue };

interface NbdObject {
  readonly type: string;
  readonly properties: ObjectProperties;
}

export class NbdObjects {
  readonly #objects = new Map<string, NbdObject>();
  readonly #secret: (id: string) => string;

  /** `secret`: the content of a secret object; throws for one that is not there. */
  constructor(secret: (id: string) => string) {
    this.#secret = secret;
  }

  /** Throws Failure for properties that the type has not, or whose values make no sense. */
  add(type: string, id: string, properties: ObjectProperties): void {
    for (const key of Object.keys(properties)) {
      const known = Object.hasOwn(NBD_OBJECTS[type] ?? {}, key) || (type === 'authz-list' && key.startsWith('rules.'));
      if (!known) throw new Failure(`Parameter '${key}' is unexpected`);
    }
    if (type.startsWith('tls-creds-')) {
      const { dir, endpoint, 'verify-peer': verifyPeer } = properties;
      if (endpoint !== undefined && endpoint !== 'server' && endpoint !== 'client') {
        throw new Failure(`Parameter 'endpoint' does not accept value '${String(endpoint)}'`);
      }
      if (verifyPeer !== undefined) boolOf(verifyPeer, 'verify-peer');
      if (dir === undefined) throw new Failure("Missing 'dir' property value");
      requireFiles(credentialFiles(type === 'tls-creds-psk' ? 'psk' : 'x509', String(dir), endpoint ?? 'client'));
    }
    if (type === 'authz-simple' && typeof properties.identity !== 'string') {
      throw new Failure("Parameter 'identity' is missing");
    }
    if (NBD_OBJECTS[type] === LIST_FILE && typeof properties.filename !== 'string') {
      throw new Failure('filename not provided');
    }
    if (type === 'authz-list') authorizeByRules(rulesOf(properties));
    this.#objects.set(id, { type, properties });
  }

  /** Makes TLS credentials known to what is opened on `host`. */
  provideTo(host: Host): void {
    for (const [id, { type }] of this.#objects) {
      if (!type.startsWith('tls-creds-')) continue;
      tlsCredentials(host).set(id, async () => {
        const { clientTls } = await import('../../node/nbd/tls-client.ts');
        return clientTls(await this.tlsCredentials(id, 'client'));
      });
    }
  }

  /** Reads the files. Throws BlockError. */
  async tlsCredentials(id: string, endpoint: TlsEndpoint): Promise<TlsCredentials> {
    const found = this.#objects.get(id);
    if (found === undefined) throw new BlockError('EINVAL', `No TLS credentials with id '${id}'`);
    if (!found.type.startsWith('tls-creds-')) {
      throw new BlockError('EINVAL', `Object with id '${id}' is not TLS credentials`);
    }
    const { dir, endpoint: own = 'client', username, passwordid } = found.properties;
    if (own !== endpoint) throw new BlockError('EINVAL', `Expected TLS credentials for a ${endpoint} endpoint`);
    if (found.type === 'tls-creds-psk') {
      return loadPsk(String(dir), { endpoint, ...(username === undefined ? {} : { username: String(username) }) });
    }
    const verifyPeer = boolOf(found.properties['verify-peer'] ?? true, 'verify-peer');
    const passphrase = passwordid === undefined ? undefined : this.#secret(String(passwordid));
    return loadX509(String(dir), { endpoint, verifyPeer, passphrase });
  }

  /** Throws BlockError. */
  async authorization(id: string): Promise<Authorization> {
    const found = this.#objects.get(id);
    if (!found?.type.startsWith('authz-')) throw new BlockError('EINVAL', `No authorization object with id '${id}'`);
    const { type, properties } = found;
    if (type === 'authz-simple') return (name) => name === properties.identity;
    if (type === 'authz-list') return authorizeByRules(rulesOf(properties));
    const filename = String(properties.filename);
    const read = async () => authorizeByRules(parseRules(JSON.parse(await fs.promises.readFile(filename, 'utf8'))));
    const first = await read().catch((error: unknown) => {
      if (error instanceof BlockError) throw error;
      if (error instanceof SyntaxError) throw new BlockError('EINVAL', `Unable to parse ${filename}: ${error.message}`);
      throw new BlockError(codeOf(error), `Unable to read ${filename}: ${errorText(codeOf(error))}`, { cause: error });
    });
    if (['no', 'off', false].includes(properties.refresh as never)) return first;
    // Read anew for each client; a file that is broken for now lets nobody in.
    return async (name) => (await read().catch(() => () => false))(name);
  }
}

/** Throws Failure for a value that is none. */
function boolOf(value: JsonValue, name: string): boolean {
  try {
    return parseBoolOption(value as OptionValue, name);
  } catch (error) {
    throw new Failure(asBlockError(error).message, { cause: error });
  }
}

/** Throws Failure for the first that cannot be read. */
function requireFiles(paths: readonly string[]): void {
  for (const path of paths) {
    try {
      fs.accessSync(path, fs.constants.R_OK);
    } catch (cause) {
      throw new Failure(`Unable to access credentials ${path}: ${errorText(codeOf(cause))}`, { cause });
    }
  }
}

/** Nested, or with dotted keys: `rules.0.match=…`. */
function rulesOf(properties: ObjectProperties): ReturnType<typeof parseRules> {
  const { policy, rules } = properties;
  if (rules !== undefined) return parseRules({ rules, policy });
  const list: Record<string, JsonValue>[] = [];
  for (const [key, value] of Object.entries(properties)) {
    const match = /^rules\.(\d{1,4})\.(match|policy|format)$/.exec(key);
    if (match === null) continue;
    const index = Number(match[1]);
    list[index] = { ...list[index], [match[2] ?? '']: value };
  }
  return parseRules({ rules: list, policy });
}
