/** TLS credentials in the folders that QEMU's and libnbd's programs use (N-101, N-102). */
import fs from 'node:fs';
import { join } from 'node:path';
import { BlockError, codeOf, errorText } from '../../core/errors.ts';

/** The side that credentials are for. */
export type TlsEndpoint = 'server' | 'client';

/** What one side of TLS shows, and takes: certificates, or shared keys. From {@link loadX509} and {@link loadPsk}. */
export type TlsCredentials =
  | {
      readonly kind: 'x509';
      readonly endpoint: TlsEndpoint;
      readonly ca: Buffer;
      readonly cert: Buffer | undefined;
      readonly key: Buffer | undefined;
      readonly crl: Buffer | undefined;
      readonly dhparam: Buffer | undefined;
      readonly passphrase: string | undefined;
      readonly verifyPeer: boolean;
    }
  | {
      readonly kind: 'psk';
      readonly endpoint: TlsEndpoint;
      /** Of a client: who it is. */
      readonly username: string;
      readonly keys: ReadonlyMap<string, Buffer>;
    };

/** Options of {@link loadX509}. */
export interface X509Options {
  readonly endpoint: TlsEndpoint;
  /** Default true. */
  readonly verifyPeer?: boolean;
  /** Of an encrypted key. */
  readonly passphrase?: string | undefined;
}

/** The files that credentials of a kind cannot do without. Shared keys: a file may be named instead of its folder. */
export function credentialFiles(kind: TlsCredentials['kind'], dir: string, endpoint: TlsEndpoint): string[] {
  if (kind === 'psk') return [fs.statSync(dir, { throwIfNoEntry: false })?.isFile() ? dir : join(dir, 'keys.psk')];
  const own = endpoint === 'server' ? ['server-cert.pem', 'server-key.pem'] : [];
  return ['ca-cert.pem', ...own].map((name) => join(dir, name));
}

/** The certificates of a folder. Throws BlockError ENOENT for a file that must be there. */
export async function loadX509(dir: string, options: X509Options): Promise<TlsCredentials> {
  const { endpoint, verifyPeer = true, passphrase } = options;
  const required = (name: string) => credentialsFile(join(dir, name));
  const optional = (name: string) => fs.promises.readFile(join(dir, name)).catch(() => undefined);
  const mine = endpoint === 'server' ? required : optional;
  return {
    kind: 'x509',
    endpoint,
    verifyPeer,
    passphrase,
    ca: await required('ca-cert.pem'),
    cert: await mine(`${endpoint}-cert.pem`),
    key: await mine(`${endpoint}-key.pem`),
    crl: await optional('ca-crl.pem'),
    dhparam: endpoint === 'server' ? await optional('dh-params.pem') : undefined,
  };
}

/** Shared keys: of a folder its `keys.psk`, or the file itself. Throws BlockError. */
export async function loadPsk(
  path: string,
  { endpoint, username = 'qemu' }: { readonly endpoint: TlsEndpoint; readonly username?: string | undefined },
): Promise<TlsCredentials> {
  const inFolder = join(path, 'keys.psk');
  const own = await fs.promises.readFile(path).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'EISDIR') return undefined;
    throw unreadable(codeOf(error) === 'ENOTDIR' ? path : inFolder, error);
  });
  const file = own === undefined ? inFolder : path;
  const text = (own ?? (await credentialsFile(inFolder))).toString('utf8');
  const keys = parsePsk(text, file);
  if (endpoint === 'client' && !keys.has(username)) {
    throw new BlockError('EINVAL', `Username ${username} not found in PSK file ${file}`);
  }
  return { kind: 'psk', endpoint, username, keys };
}

/** Lines `user:hexkey`. */
function parsePsk(text: string, file: string): Map<string, Buffer> {
  const keys = new Map<string, Buffer>();
  text.split('\n').forEach((line, index) => {
    if (line.trim() === '' || line.startsWith('#')) return;
    const match = /^([^:]+):((?:[0-9a-fA-F]{2})+)\s*$/.exec(line);
    if (match === null) {
      throw new BlockError('EINVAL', `Line ${index + 1} of PSK file ${file} is not of the form user:hexkey`);
    }
    keys.set(match[1] ?? '', Buffer.from(match[2] ?? '', 'hex'));
  });
  return keys;
}

async function credentialsFile(path: string): Promise<Buffer> {
  return fs.promises.readFile(path).catch((error: unknown) => {
    throw unreadable(path, error);
  });
}

function unreadable(path: string, cause: unknown): BlockError {
  const code = codeOf(cause);
  return new BlockError(code, `Unable to access credentials ${path}: ${errorText(code)}`, { cause });
}
