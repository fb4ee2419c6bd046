/** Keys that take long to derive, and what comes of giving up. */
import { spawn } from 'node:child_process';
import { pbkdf2Sync } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { cryptoOf } from '../crypto/provider.ts';
import { SimHost } from '../testing/index.ts';
import { nodeCrypto } from './crypto.ts';
import { deriveApart, isLong, PROGRAM } from './derivation.ts';

const REQUEST = {
  hash: 'sha256',
  password: new TextEncoder().encode('päss'),
  salt: Uint8Array.of(0, 255, 7),
  iterations: 3,
  length: 70,
} as const;
const { signal } = new AbortController();

function children(): string[] {
  const path = `/proc/${process.pid}/task/${process.pid}/children`;
  return readFileSync(path, 'latin1')
    .split(' ')
    .filter((pid) => pid !== '');
}

describe('Q-CRYPT-3: deriving off the event loop', () => {
  test('in a process of its own: the same key', async () => {
    const { password, salt, iterations, length, hash } = REQUEST;
    const expected = new Uint8Array(pbkdf2Sync(password, salt, iterations, length, hash));
    expect(await deriveApart({ ...REQUEST, signal })).toEqual(expected);
    expect(await nodeCrypto().pbkdf2(REQUEST)).toEqual(Buffer.from(expected));
  });

  test('so only where it takes long, which is twice what is usual, and can be aborted', () => {
    expect(isLong({ ...REQUEST, signal, length: 32, iterations: 2 ** 24 })).toBe(false);
    expect(isLong({ ...REQUEST, signal, length: 64, iterations: 2 ** 23 + 1 })).toBe(true);
    expect(isLong({ ...REQUEST, length: 64, iterations: 2 ** 28 })).toBe(false);
  });

  test('aborted, the process is ended', async () => {
    const before = children();
    const controller = new AbortController();
    const deriving = nodeCrypto().pbkdf2({ ...REQUEST, iterations: 2 ** 31 - 1, signal: controller.signal });
    expect(children().length).toBe(before.length + 1);
    const reason = new Error('given up');
    controller.abort(reason);
    await expect(deriving).rejects.toBe(reason);
    while (children().length > before.length) await setImmediate();
  });

  test('when the program that waits is killed, the process does not work on for nobody', async () => {
    const child = spawn(process.execPath, ['-e', PROGRAM], { stdio: ['pipe', 'ignore', 'inherit'] });
    const request = { ...REQUEST, password: '', salt: '', iterations: 2 ** 31 - 1 };
    child.stdin.end(`${JSON.stringify(request)}\n`);
    expect(await once(child, 'close')).toEqual([null, 'SIGKILL']);
  });

  test('what cannot be ended is waited for no longer', async () => {
    const never = { ...nodeCrypto(), pbkdf2: () => new Promise<Uint8Array>(() => {}) };
    const host = Object.assign(new SimHost(), { crypto: () => never });
    const controller = new AbortController();
    const crypto = await cryptoOf(host, controller.signal);
    const deriving = crypto.pbkdf2(REQUEST);
    controller.abort(new Error('given up'));
    await expect(deriving).rejects.toThrow('given up');
    await expect(crypto.pbkdf2(REQUEST)).rejects.toThrow('given up');
  });
});
