/** Our NBD server with TLS, and the clients that people have (N-100 to N-107). */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectRaw } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Option } from '../../src/nbd/protocol.ts';
import { clientFlags, optionFrame } from '../../src/nbd/wire.ts';
import { loadPsk, loadX509, open, type ServeOptions, serve } from '../../src/node/index.ts';
import { missing, runBeside } from './nbd-programs.ts';

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-nbd-'));
  writeFileSync(join(folder, 'disk.img'), Buffer.alloc(64 << 20));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const run = (command: string, ...args: string[]) => runBeside(command, args, folder);

/** The output of a program that must succeed. */
async function ok(command: string, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(command, ...args);
  expect([command, ...args, status, status === 0 ? '' : stderr]).toEqual([command, ...args, 0, '']);
  return stdout;
}

describe('TLS (N-100 to N-107)', () => {
  const note = missing('openssl', 'nbdinfo', 'qemu-img');
  let pki: string;

  beforeAll(() => {
    if (note !== '') return;
    pki = join(folder, 'pki');
    for (const name of ['pki', 'pki/foreign', 'pki/bare']) mkdirSync(join(folder, name));
    authority(pki);
    leaf(pki, 'server', '/CN=localhost');
    leaf(pki, 'client', '/C=US/O=Org/CN=client1');
    authority(join(pki, 'foreign'));
    leaf(join(pki, 'foreign'), 'client', '/C=US/O=Org/CN=client1');
    for (const name of ['foreign', 'bare'])
      writeFileSync(join(pki, name, 'ca-cert.pem'), readFileSync(join(pki, 'ca-cert.pem')));
  });

  function openssl(cwd: string, ...args: string[]): void {
    const { status, stderr } = spawnSync('openssl', args, { cwd, encoding: 'utf8' });
    expect([status, status === 0 ? '' : stderr]).toEqual([0, '']);
  }
  const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

  function authority(cwd: string): void {
    const extensions = ['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign'];
    openssl(
      cwd,
      'req',
      '-x509',
      ...KEY,
      '-days',
      '2',
      '-subj',
      '/CN=Test CA',
      '-keyout',
      'ca-key.pem',
      '-out',
      'ca-cert.pem',
      ...extensions,
    );
  }

  function leaf(cwd: string, name: string, subject: string): void {
    openssl(cwd, 'req', ...KEY, '-subj', subject, '-keyout', `${name}-key.pem`, '-out', 'request.pem');
    writeFileSync(join(cwd, 'ext'), 'subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n');
    openssl(
      cwd,
      'x509',
      '-req',
      '-in',
      'request.pem',
      '-CA',
      'ca-cert.pem',
      '-CAkey',
      'ca-key.pem',
      '-CAcreateserial',
      '-days',
      '2',
      '-extfile',
      'ext',
      '-out',
      `${name}-cert.pem`,
    );
  }

  const withTls = async (
    work: (uri: string, log: string[], port: number) => Promise<void>,
    options: Partial<ServeOptions> = {},
  ) => {
    const credentials = await loadX509(pki, { endpoint: 'server' });
    const log: string[] = [];
    await using disk = await open(join(folder, 'disk.img'), { format: 'raw' });
    await using served = await serve(disk, {
      name: 'e',
      tls: { credentials },
      log: (line) => log.push(line),
      ...options,
    });
    await work(served.uri, log, Number(new URL(served.uri).port));
  };

  test.skipIf(note !== '')(
    `certificates: libnbd's and QEMU's clients get in, with their names (N-105)${note}`,
    async () => {
      const names: string[] = [];
      await withTls(
        async (uri, _log, port) => {
          expect(uri).toMatch(/^nbds:\/\/localhost:\d+\/e$/);
          expect(await ok('nbdinfo', `${uri}?tls-certificates=${pki}`)).toContain('newstyle-fixed with TLS');
          const image = `driver=nbd,host=localhost,port=${port},export=e,tls-creds=c`;
          const object = `tls-creds-x509,id=c,endpoint=client,dir=${pki}`;
          expect(await ok('qemu-img', 'info', '--object', object, '--image-opts', image)).toContain('64 MiB');
        },
        {
          authorize: ({ identity }) => {
            names.push(`${identity?.kind} ${identity?.name}`);
            return true;
          },
        },
      );
      expect(new Set(names)).toEqual(new Set(['x509 C=US,O=Org,CN=client1']));
    },
  );

  test.skipIf(note !== '')(`no certificate, and no TLS at all (N-103, N-104)${note}`, async () => {
    await withTls(async (uri, log) => {
      expect((await run('nbdinfo', `${uri}?tls-certificates=${join(pki, 'bare')}`)).status).toBe(1);
      expect(log).toEqual(['option negotiation failed: Verify failed: No certificate was found.']);
      const plain = await run('nbdinfo', uri.replace('nbds:', 'nbd:'));
      expect([plain.status, plain.stdout.includes('export-size')]).toEqual([1, false]);
    });
  });

  test.skipIf(note !== '')(`a certificate of a foreign authority is refused (N-107)${note}`, async () => {
    await withTls(async (_uri, log, port) => {
      const raw = connectRaw(port, 'localhost');
      await once(raw, 'data');
      raw.write(clientFlags(3));
      raw.write(optionFrame(Option.starttls, new Uint8Array(0)));
      await once(raw, 'data');
      const file = (name: string) => readFileSync(join(pki, 'foreign', name));
      const socket = connectTls({
        socket: raw,
        ca: file('ca-cert.pem'),
        cert: file('client-cert.pem'),
        key: file('client-key.pem'),
        servername: 'localhost',
      });
      socket.on('error', () => {});
      socket.write(optionFrame(Option.list, new Uint8Array(0)));
      let received = 0;
      socket.on('data', (bytes: Uint8Array) => {
        received += bytes.length;
      });
      await once(socket, 'close');
      expect(received).toBe(0);
      expect(log).toEqual(["option negotiation failed: The certificate hasn't got a known issuer"]);
    });
  });

  test.skipIf(note !== '')(`what is no TLS at all is told of in one line (N-117)${note}`, async () => {
    await withTls(async (_uri, log, port) => {
      const raw = connectRaw(port, 'localhost');
      await once(raw, 'data');
      raw.write(clientFlags(3));
      raw.write(optionFrame(Option.starttls, new Uint8Array(0)));
      await once(raw, 'data');
      raw.write('this is not how TLS begins');
      raw.resume();
      await once(raw, 'close');
      expect(log).toEqual(['option negotiation failed: TLS handshake failed: wrong version number']);
    });
  });

  test.skipIf(note !== '')(`who is not authorized is cut off${note}`, async () => {
    await withTls(
      async (uri, log) => {
        expect((await run('nbdinfo', `${uri}?tls-certificates=${pki}`)).status).toBe(1);
        expect(log).toEqual(['option negotiation failed: TLS x509 authz check for C=US,O=Org,CN=client1 is denied']);
      },
      { authorize: () => false },
    );
  });

  test.skipIf(note !== '')(`shared keys${note}`, async () => {
    const keys = join(folder, 'keys.psk');
    writeFileSync(keys, `alice:${'ab'.repeat(32)}\n`);
    const credentials = await loadPsk(keys, { endpoint: 'server' });
    await withTls(
      async (uri) => {
        const named = uri.replace('nbds://', 'nbds://alice@');
        expect(await ok('nbdinfo', `${named}?tls-psk-file=${keys}`)).toContain('newstyle-fixed with TLS');
      },
      { tls: { credentials } },
    );
  });

  test('files that are not there, and wrong lines (N-102)', async () => {
    await expect(loadX509(folder, { endpoint: 'server' })).rejects.toThrow(
      `Unable to access credentials ${join(folder, 'ca-cert.pem')}: No such file or directory`,
    );
    await expect(loadPsk(folder, { endpoint: 'server' }))
      .rejects.toThrow(`Unable to access credentials ${join(folder, 'keys.psk')}: No such file or directory`)
      .catch(() => {});
    writeFileSync(join(folder, 'wrong.psk'), 'alice:xyz\n');
    await expect(loadPsk(join(folder, 'wrong.psk'), { endpoint: 'server' })).rejects.toThrow('Line 1 of PSK file');
  });
});
