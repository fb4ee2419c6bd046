/**
 * Keys that take long to derive, as hostile headers ask for: in a process of their own, since nothing ends what a thread of
 * Node's pool has begun, and Node does not exit before.
 */
import { basename } from 'node:path';
import { BlockError } from '../core/errors.ts';
import type { Pbkdf2Request } from '../core/host-crypto.ts';
import { DIGEST_BYTES } from '../core/host-crypto.ts';

/** Twice as much work as usual passphrases are on a fast machine, beside which the start of a process is nothing. */
const LONG = 2 ** 24;

/**
 * Reads the request as a line of JSON, with bytes as Base64, and writes the key as such. Ends when its input does, so that
 * it does not work on for nobody when the program that waits for it is killed.
 */
export const PROGRAM = `
const bytes = (text) => Buffer.from(text, 'base64');
let line = '';
process.stdin.setEncoding('latin1').on('data', (text) => {
  line += text;
  if (!line.endsWith('\\n')) return;
  const { hash, password, salt, iterations, length } = JSON.parse(line);
  require('node:crypto').pbkdf2(bytes(password), bytes(salt), iterations, length, hash, (error, key) => {
    if (error) throw error;
    process.stdout.write(key.toString('base64'), () => process.exit());
  });
}).on('close', () => process.kill(process.pid, 'SIGKILL'));
`;

/** Whether a request is to be run by {@link deriveApart}: it can be aborted, and takes long. */
export function isLong({ hash, iterations, length, signal }: Pbkdf2Request): boolean {
  return signal !== undefined && iterations * Math.ceil(length / DIGEST_BYTES[hash]) > LONG && runsNode();
}

/** Programs that have Node inside would start themselves. */
function runsNode(): boolean {
  return /^node(js)?(\.exe)?$/.test(basename(process.execPath));
}

/** As `HostCrypto.pbkdf2`; when the signal is aborted, the process is ended. */
export function deriveApart({ hash, password, salt, iterations, length, signal }: Pbkdf2Request): Promise<Uint8Array> {
  if (signal?.aborted) return Promise.reject(signal.reason);
  const { spawn } = process.getBuiltinModule('node:child_process');
  return new Promise((resolve, reject) => {
    const env = { ...process.env, NODE_OPTIONS: '' };
    const child = spawn(process.execPath, ['-e', PROGRAM], { stdio: ['pipe', 'pipe', 'ignore'], env });
    const stop = () => {
      child.kill('SIGKILL');
      reject(signal?.reason);
    };
    signal?.addEventListener('abort', stop, { once: true });
    let answer = '';
    child.stdout.setEncoding('latin1').on('data', (text: string) => {
      answer += text;
    });
    const failed = (cause: unknown) => {
      signal?.removeEventListener('abort', stop);
      reject(new BlockError('EIO', 'Could not derive a key: its process failed', { cause }));
    };
    child.on('error', failed);
    child.on('close', () => {
      const key = Buffer.from(answer, 'base64');
      if (key.length !== length) return failed(undefined);
      signal?.removeEventListener('abort', stop);
      resolve(new Uint8Array(key));
    });
    const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
    const request = { hash, password: base64(password), salt: base64(salt), iterations, length };
    // One that has ended before it read this is told of by its end.
    child.stdin.on('error', () => {}).write(`${JSON.stringify(request)}\n`);
  });
}
