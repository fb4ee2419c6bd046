/** NBD servers of others, run on unix sockets in a folder, and the credentials that they share with us. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';

/** Starts a server that stays in the foreground, and resolves when it takes connections at the socket. */
export async function startServer(command: string, args: readonly string[], socket: string): Promise<ChildProcess> {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let complaint = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  for (;;) {
    if (child.exitCode !== null) throw new Error(`${command} ${args.join(' ')}: ${complaint}`);
    if (await answers(socket)) return child;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function answers(socket: string): Promise<boolean> {
  if (!existsSync(socket)) return Promise.resolve(false);
  return new Promise((resolve) => {
    const probe = connect(socket);
    probe.once('data', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
    probe.once('close', () => resolve(false));
  });
}

export async function stopServer(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill(signal);
  await exited;
}

/** Shared keys for `alice`, in the folder that is returned. */
export function makePsk(folder: string): string {
  const dir = join(folder, 'psk');
  mkdirSync(dir, { recursive: true });
  spawnSync('psktool', ['-u', 'alice', '-p', join(dir, 'keys.psk')]);
  chmodSync(join(dir, 'keys.psk'), 0o600);
  return dir;
}

const TEMPLATES = {
  ca: 'cn = ca\nca\ncert_signing_key\ncrl_signing_key\n',
  server: 'cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nencryption_key\nsigning_key\n',
  client: 'country = US\norganization = Org\ncn = client1\ntls_www_client\nencryption_key\nsigning_key\n',
};

/** An authority, and certificates of it for a server named localhost and a client, in the folder that is returned. */
export function makeCertificates(folder: string, name: string): string {
  const dir = join(folder, name);
  mkdirSync(dir, { recursive: true });
  const tool = (...args: string[]) => {
    const { status, stderr } = spawnSync('certtool', args, { cwd: dir, encoding: 'utf8' });
    if (status !== 0) throw new Error(`certtool ${args.join(' ')}: ${stderr}`);
  };
  for (const [who, template] of Object.entries(TEMPLATES)) {
    writeFileSync(join(dir, `${who}.info`), template);
    tool('--generate-privkey', '--key-type=ecdsa', '--outfile', `${who}-key.pem`);
    const made = ['--load-privkey', `${who}-key.pem`, '--template', `${who}.info`, '--outfile', `${who}-cert.pem`];
    if (who === 'ca') tool('--generate-self-signed', ...made);
    else {
      const signer = ['--load-ca-certificate', 'ca-cert.pem', '--load-ca-privkey', 'ca-key.pem'];
      tool('--generate-certificate', ...signer, ...made);
    }
  }
  // Without it, qemu-nbd spends seconds to make such numbers at each start.
  tool('--get-dh-params', '--outfile', 'dh-params.pem');
  return dir;
}
