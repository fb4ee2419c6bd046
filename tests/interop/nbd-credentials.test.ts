/** What may lie in a folder of certificates besides them: revoked ones, DH parameters, encrypted keys (N-100, N-101). */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectRaw } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { tlsCredentials } from '../../src/nbd/client/credentials.ts';
import { Option } from '../../src/nbd/protocol.ts';
import { clientFlags, optionFrame } from '../../src/nbd/wire.ts';
import { clientTls, nodeHost, open, serve } from '../../src/node/index.ts';
import { serverTls } from '../../src/node/nbd/tls-server.ts';
import { ObjectList } from '../../src/tools/command-line/objects.ts';
import { linkProgram } from './cli-programs.ts';
import { makeCertificates } from './nbd-peers.ts';
import { missing, runBeside } from './nbd-programs.ts';

const note = missing('certtool');
let folder: string;
let pki: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-nbd-'));
  writeFileSync(join(folder, 'disk.img'), Buffer.alloc(1 << 20));
  if (note === '') pki = makeCertificates(folder, 'pki');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function certtool(cwd: string, ...args: string[]): void {
  const { status, stderr } = spawnSync('certtool', args, { cwd, encoding: 'utf8' });
  expect([status, status === 0 ? '' : stderr]).toEqual([0, '']);
}

/** A copy of the credentials, changed. */
function variant(name: string, change: (dir: string) => void): string {
  const dir = join(folder, name);
  cpSync(pki, dir, { recursive: true });
  change(dir);
  return dir;
}

function revoke(dir: string, who: 'client' | 'server'): void {
  writeFileSync(join(dir, 'crl.info'), 'crl_next_update = 43\ncrl_number = 5\n');
  const signer = ['--load-ca-certificate', 'ca-cert.pem', '--load-ca-privkey', 'ca-key.pem'];
  const what = ['--load-certificate', `${who}-cert.pem`, '--template', 'crl.info', '--outfile', 'ca-crl.pem'];
  certtool(dir, '--generate-crl', ...signer, ...what);
}

const SECRET = 'secret,id=s,data=open sesame';
const WRONG = 'secret,id=s,data=open barley';

function credentials(endpoint: 'server' | 'client', dir: string, more = '', secret = SECRET) {
  const objects = new ObjectList();
  objects.add(secret);
  objects.add(`tls-creds-x509,id=t,endpoint=${endpoint},dir=${dir}${more}`);
  return objects.nbd.tlsCredentials('t', endpoint);
}

/** Serves with one folder's credentials, and says what became of a client with those of another. */
async function meeting(server: string, client: string, { server: serverMore = '', client: clientMore = '' } = {}) {
  const log: string[] = [];
  await using disk = await open(join(folder, 'disk.img'), { format: 'raw' });
  const tls = { credentials: await credentials('server', server, serverMore) };
  await using served = await serve(disk, { name: 'e', tls, log: (line) => log.push(line) });
  const host = nodeHost({ warn: () => {} });
  tlsCredentials(host).set('c', async () => clientTls(await credentials('client', client, clientMore)));
  const { port } = new URL(served.uri);
  const options = { driver: 'nbd', host: 'localhost', port: Number(port), export: 'e', 'tls-creds': 'c' };
  try {
    await using opened = await new Graph({ host, drivers: DRIVERS }).open(options);
    return { length: opened.length, log };
  } catch (error) {
    return { error: (error as Error).message, log };
  }
}

describe.skipIf(note !== '')(`shared keys${note}`, () => {
  test('a server without them is refused, also one with a certificate that the system trusts (N-106, N-160)', async () => {
    const keys = join(folder, 'keys.psk');
    writeFileSync(keys, `alice:${'ab'.repeat(32)}\n`);
    await using disk = await open(join(folder, 'disk.img'), { format: 'raw' });
    const tls = { credentials: await credentials('server', pki, ',verify-peer=no') };
    await using served = await serve(disk, { name: 'e', tls });
    const { port } = new URL(served.uri);
    const uri = `nbds://alice@localhost:${port}/e?tls-psk-file=${keys}`;
    const diskwright = join(folder, 'diskwright');
    await linkProgram('diskwright', diskwright);
    const trusting = `NODE_EXTRA_CA_CERTS=${join(pki, 'ca-cert.pem')}`;
    const client = [trusting, process.execPath, diskwright, 'info', uri];
    const { status, stdout, stderr } = await runBeside('env', client, folder);
    const [, reason] = stderr.split(`diskwright: Could not open '${uri}': TLS handshake failed: `);
    expect([status, stdout, reason]).toEqual([1, '', 'self-signed certificate in certificate chain\n']);
  });
});

describe.skipIf(note !== '')(`x509${note}`, () => {
  test('certificates that fit', async () => {
    expect(await meeting(pki, pki)).toEqual({ length: 1 << 20, log: [] });
  });

  test("ca-crl.pem: a client whose certificate was revoked does not get in, nor is such a server's believed", async () => {
    const clientRevoked = variant('no-client', (dir) => revoke(dir, 'client'));
    const serverRevoked = variant('no-server', (dir) => revoke(dir, 'server'));
    const [refused, unbelieved, neither] = [
      await meeting(clientRevoked, pki),
      await meeting(pki, serverRevoked),
      await meeting(serverRevoked, clientRevoked),
    ];
    expect(refused.error).toBeDefined();
    expect(refused.log).toEqual([expect.stringMatching(/^option negotiation failed: /)]);
    expect(unbelieved.error).toBe('TLS handshake failed: certificate revoked');
    // Each looks at the other's certificate only.
    expect(neither).toEqual({ length: 1 << 20, log: [] });
  });

  test('encrypted keys are opened with the secret of passwordid, and with no other', async () => {
    const dir = variant('encrypted', (made) => {
      for (const who of ['server', 'client']) {
        const key = `${who}-key.pem`;
        certtool(made, '--to-p8', '--load-privkey', key, '--password', 'open sesame', '--outfile', 'encrypted.pem');
        writeFileSync(join(made, key), readFileSync(join(made, 'encrypted.pem')));
      }
    });
    const more = { server: ',passwordid=s', client: ',passwordid=s' };
    expect(await meeting(dir, dir, more)).toEqual({ length: 1 << 20, log: [] });
    const unusable = /^Unable to use the TLS credentials: /;
    const [without, wrong] = [
      await credentials('server', dir),
      await credentials('server', dir, ',passwordid=s', WRONG),
    ];
    expect(() => serverTls(without, { required: true })).toThrow(unusable);
    expect(() => serverTls(wrong, { required: true })).toThrow(unusable);
    expect((await meeting(pki, dir)).error).toMatch(/^TLS handshake failed: /);
  });

  test('dh-params.pem: its parameters are those that are used; TLS 1.1 is not (N-100)', async () => {
    const dir = variant('dh', (made) => {
      const tool = (...args: string[]) => certtool(made, ...args);
      // Only with RSA are there suites that use them.
      tool('--generate-privkey', '--key-type=rsa', '--bits', '2048', '--outfile', 'server-key.pem');
      const signer = ['--load-ca-certificate', 'ca-cert.pem', '--load-ca-privkey', 'ca-key.pem'];
      const what = ['--load-privkey', 'server-key.pem', '--template', 'server.info', '--outfile', 'server-cert.pem'];
      tool('--generate-certificate', ...signer, ...what);
    });
    const bits = async (parameters: number | undefined) => {
      rmSync(join(dir, 'dh-params.pem'), { force: true });
      if (parameters !== undefined)
        certtool(dir, '--get-dh-params', `--bits=${parameters}`, '--outfile', 'dh-params.pem');
      return encrypted(dir, { maxVersion: 'TLSv1.2', ciphers: 'DHE-RSA-AES128-GCM-SHA256' }, (socket) => {
        const { size } = socket.getEphemeralKeyInfo() as { size?: number };
        return size;
      });
    };
    expect([await bits(3072), await bits(undefined)]).toEqual([3072, 2048]);
    const old = encrypted(dir, { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1' }, (socket) => socket.getProtocol());
    await expect(old).rejects.toBeDefined();
    writeFileSync(join(dir, 'dh-params.pem'), 'no parameters');
    const broken = await credentials('server', dir);
    expect(() => serverTls(broken, { required: true })).toThrow(/^Unable to use the TLS credentials: /);
  });
});

/** What is found of TLS with a server of these credentials, which asks for no certificate. */
async function encrypted<T>(dir: string, options: ConnectionOptions, look: (socket: TLSSocket) => T): Promise<T> {
  await using disk = await open(join(folder, 'disk.img'), { format: 'raw' });
  const tls = { credentials: await credentials('server', dir, ',verify-peer=no') };
  await using served = await serve(disk, { tls });
  const raw = connectRaw(Number(new URL(served.uri).port), 'localhost');
  await once(raw, 'data');
  raw.write(clientFlags(3));
  raw.write(optionFrame(Option.starttls, new Uint8Array(0)));
  await once(raw, 'data');
  const socket = connectTls({
    socket: raw,
    ca: readFileSync(join(dir, 'ca-cert.pem')),
    servername: 'localhost',
    ...options,
  });
  try {
    await once(socket, 'secureConnect');
    return look(socket);
  } finally {
    socket.destroy();
  }
}
