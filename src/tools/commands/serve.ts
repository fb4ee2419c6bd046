/** `serve`: images for NBD clients. */
import { basename } from 'node:path';
import type { Graph } from '../../core/graph.ts';
import { DEFAULT_PORT } from '../../nbd/protocol.ts';
import { hasBitmap } from '../../nbd/server/export.ts';
import type { NbdServerOptions } from '../../nbd/server/server.ts';
import type { ListenAddress } from '../../node/nbd/listen.ts';
import { loadPsk, loadX509, type TlsCredentials } from '../../node/nbd/tls-credentials.ts';
import { serverTls } from '../../node/nbd/tls-server.ts';
import { type Command, type GivenOptions, readCommandLine } from '../command.ts';
import { plainNumber, secondsArgument } from '../command-line/numbers.ts';
import { FORMAT, IMAGE_OPTS, OBJECT } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure, misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { closeExports } from '../nbd/open-exports.ts';
import { runServer, type ServedExport } from '../nbd/run-server.ts';
import { authorizeBy, inheritedAddress, isLoopback, OPEN_TO_ALL, portOf } from '../nbd/serve-arguments.ts';
import { imageRequest } from '../open-image.ts';
import { LOAD_SNAPSHOT, openAtSnapshot } from '../snapshots.ts';

export const serveCommand: Command = {
  name: 'serve',
  summary: 'Serve images to NBD clients',
  usage: '[--object objectdef] [--image-opts] [-f fmt] [-r] [-l snapshot] [--socket path | --port port] filename...',
  operands: 'FILENAME...',
  description: `Prints where clients find the images, and serves them until it is stopped. A single image has the empty export
name; of several each has its file's name, and the first is also what clients get that name none.
Clients of this machine only can connect, unless --bind says otherwise. Started with a socket, as by systemd or
nbdinfo -- [ diskwright serve disk.vdi ], it serves there, and prints nothing.`,
  options: [
    FORMAT,
    { short: 'r', long: 'read-only', help: 'clients may only read' },
    LOAD_SNAPSHOT,
    { short: 'k', long: 'socket', argument: 'PATH', help: 'listen on a unix socket instead of a TCP port' },
    { short: 'p', long: 'port', argument: 'PORT', help: `TCP port, 0: any that is free (default ${DEFAULT_PORT})` },
    { short: 'b', long: 'bind', argument: 'HOST', help: 'address to listen on, e.g. 0.0.0.0; with --tls, please' },
    { short: 'x', long: 'name', argument: 'NAME', help: "the export's name; for each image in turn" },
    { short: 'D', long: 'description', argument: 'TEXT', help: 'a text about the export; for each image in turn' },
    { short: 'A', long: 'allocation-depth', help: 'let clients ask which layer of a chain holds what' },
    {
      short: 'B',
      long: 'bitmap',
      argument: 'NAME',
      help: 'let clients ask what the dirty bitmap of this name says, if any; may be repeated',
    },
    { short: 'e', long: 'shared', argument: 'NUMBER', help: 'clients at once, 0: any number (default 100)' },
    { short: 't', long: 'persistent', help: 'go on when the last client has left; this is the default' },
    { long: 'once', help: 'end when the last client has left' },
    { long: 'tls', argument: 'FOLDER', help: 'use TLS, with the certificates of this folder (ca-cert.pem and so on)' },
    { long: 'tls-psk', argument: 'FILE', help: 'use TLS, with the shared keys of this file' },
    { long: 'tls-authz', argument: 'ID', help: 'let in only whom the authorization object of this id lets in' },
    { long: 'tls-no-verify', help: 'let in clients without a certificate' },
    { long: 'snapshot', help: 'keep what clients write in a temporary overlay, and drop it at the end' },
    { long: 'idle-timeout', argument: 'SECONDS', help: 'cut off clients that ask for nothing for so long' },
    {
      long: 'handshake-timeout',
      argument: 'SECONDS',
      help: 'time that clients get to choose an export (default 10, 0: no limit)',
    },
    { long: 'grace', argument: 'SECONDS', help: 'time that requests under way get when it is stopped (default 5)' },
    { long: 'pid-file', argument: 'PATH', help: 'file for the number of this process' },
    OBJECT,
    IMAGE_OPTS,
  ],
  examples: [
    'serve disk.vdi',
    'serve --socket /run/user/1000/disk.sock --read-only a.vdi b.img',
    'serve --load-snapshot before-upgrade disk.qcow2',
    'serve --bind 0.0.0.0 --tls pki disk.vdi',
    'serve --tls pki --object authz-simple,id=a,identity=CN=backup --tls-authz a disk.vdi',
  ],
  run,
};

function refuseSenseless(given: GivenOptions, { names, descriptions }: Lists): void {
  const images = given.operands.length;
  if (given.has('load-snapshot') && images > 1) throw misuse('-l goes with one image only');
  if (names.length > images) throw misuse('There are more names than images');
  if (descriptions.length > images) throw misuse('There are more descriptions than images');
  if (given.has('once') && given.has('persistent')) throw misuse('--once and --persistent are mutually exclusive');
  if (given.has('tls-authz') && !given.has('tls') && !given.has('tls-psk')) {
    throw misuse('--tls-authz goes with --tls or --tls-psk only');
  }
  if (given.has('tls-no-verify') && !given.has('tls')) throw misuse('--tls-no-verify goes with --tls only');
}

interface Lists {
  readonly names: string[];
  readonly descriptions: string[];
  readonly bitmaps: string[];
}

async function run(context: Context): Promise<number> {
  const lists: Lists = { names: [], descriptions: [], bitmaps: [] };
  const given = readCommandLine(context, serveCommand, {
    name: (value) => void lists.names.push(value),
    description: (value) => void lists.descriptions.push(value),
    bitmap: (value) => void lists.bitmaps.push(value),
  });
  if (given.operands.length === 0) throw misuse('Expecting at least one image file name');
  refuseSenseless(given, lists);
  const { signal, messages, out } = context;
  const address = addressOf(given);
  const server = await serverOptions(context, given);
  const graph = newGraph(context, { survives: true });
  const exports = await openAll(context, graph, given, lists);
  try {
    await runServer({
      host: graph.host,
      exports,
      server,
      address,
      messages,
      signal,
      persistent: !given.has('once'),
      pidFile: given.text('pid-file'),
      ready(uriOf) {
        // Who has passed a socket on knows where, and standard output may be its own.
        if (address.kind === 'fd') return;
        for (const { options } of exports) out.line(uriOf(options.name ?? ''));
        out.flush();
        if (address.kind === 'tcp' && address.host !== undefined && server.tls === undefined) {
          if (!isLoopback(address.host)) messages.warning(`'${address.host}' ${OPEN_TO_ALL}`);
        }
      },
    });
  } finally {
    await closeExports(exports);
  }
  return 0;
}

function addressOf(given: GivenOptions): ListenAddress {
  const [socket, port, bind] = ['socket', 'port', 'bind'].map((key) => given.text(key));
  const inherited = inheritedAddress('diskwright serve', { socket, port, bind });
  if (inherited !== undefined) return inherited;
  if (socket !== undefined) {
    if (port !== undefined || bind !== undefined) throw misuse('--socket goes with neither --port nor --bind');
    return { kind: 'unix', path: absolute(socket) };
  }
  return { kind: 'tcp', host: bind, port: portOf(port, bind) };
}

function absolute(path: string): string {
  return path.startsWith('/') ? path : `${process.cwd()}/${path}`;
}

function numberOf(what: string, text: string, max: number): number {
  const number = plainNumber(text);
  if (number === undefined || number > max) throw new Failure(`Invalid ${what} '${text}': not between 0 and ${max}`);
  return number;
}

async function serverOptions({ messages, objects }: Context, given: GivenOptions): Promise<NbdServerOptions> {
  const credentials = await credentialsOf(given);
  const authz = given.text('tls-authz');
  const seconds = (option: string, fallback: string) =>
    secondsArgument(option.replace('-', ' '), given.text(option) ?? fallback);
  return {
    maxConnections: numberOf('number of clients', given.text('shared') ?? '100', 2 ** 31 - 1),
    handshakeTimeoutMs: seconds('handshake-timeout', '10'),
    idleTimeoutMs: seconds('idle-timeout', '0'),
    graceMs: seconds('grace', '5'),
    log: (line) => messages.error(line),
    tls: credentials && serverTls(credentials, { required: true }),
    ...(authz !== undefined && { authorize: await authorizeBy(objects, authz) }),
  };
}

async function credentialsOf(given: GivenOptions): Promise<TlsCredentials | undefined> {
  const [folder, keys] = [given.text('tls'), given.text('tls-psk')];
  if (folder !== undefined && keys !== undefined) throw misuse('--tls and --tls-psk are mutually exclusive');
  if (folder !== undefined) {
    return loadX509(folder, { endpoint: 'server', verifyPeer: !given.has('tls-no-verify') });
  }
  return keys === undefined ? undefined : loadPsk(keys, { endpoint: 'server' });
}

async function openAll(context: Context, graph: Graph, given: GivenOptions, lists: Lists): Promise<ServedExport[]> {
  const images = given.operands;
  const names = images.map((image, index) => lists.names[index] ?? (images.length === 1 ? '' : basename(image)));
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new Failure(`Two images would have the export name '${twice}': give them with --name`);
  const exports: ServedExport[] = [];
  try {
    for (const [index, image] of images.entries()) {
      const writable = !given.has('read-only');
      const snapshot = given.has('snapshot');
      const request = { ...imageRequest(context, given, image, 'format'), writable, snapshot, signal: context.signal };
      const disk = await openAtSnapshot(context, graph, given, request);
      const options = {
        name: names[index] ?? '',
        description: lists.descriptions[index] ?? '',
        bitmaps: lists.bitmaps.filter((name) => hasBitmap(disk, name)),
        allocationDepth: given.has('allocation-depth'),
        default: index === 0,
      };
      exports.push({ disk, options });
    }
    const nowhere = lists.bitmaps.find((name) => !exports.some(({ options }) => options.bitmaps?.includes(name)));
    if (nowhere !== undefined) throw new Failure(`Bitmap '${nowhere}' is not found`);
    return exports;
  } catch (error) {
    await closeExports(exports);
    throw error;
  }
}
