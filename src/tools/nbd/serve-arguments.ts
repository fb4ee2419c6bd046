/** From qemu-nbd's command line to a running server (N-110 to N-117). */
import { DEFAULT_PORT } from '../../nbd/protocol.ts';
import type { NbdServerOptions } from '../../nbd/server/server.ts';
import { inheritedSocket } from '../../node/nbd/activation.ts';
import type { ListenAddress } from '../../node/nbd/listen.ts';
import { servicePort } from '../../node/nbd/services.ts';
import { serverTls } from '../../node/nbd/tls-server.ts';
import type { ObjectList } from '../command-line/objects.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { newGraph } from '../graph.ts';
import type { NbdArguments } from './arguments.ts';
import { closeExports, openExports } from './open-exports.ts';
import { runServer } from './run-server.ts';

/** Serves until stopped. `ready` is called when clients can connect. Throws Failure, BlockError. */
export async function serveArguments(context: Context, args: NbdArguments, ready: () => void): Promise<void> {
  const { messages, signal } = context;
  const { given } = args;
  refuseUnsupported(given);
  const address = given.has('stdio') ? ({ kind: 'stdio' } as const) : addressOf(messages.program, given);
  const server = await serverOptions(context, args);
  const graph = newGraph(context, { survives: true });
  const exports = await openExports({ messages, signal }, graph, args);
  const host = address.kind === 'tcp' ? address.host : undefined;
  const open = host !== undefined && server.tls === undefined && !isLoopback(host);
  try {
    await runServer({
      host: graph.host,
      exports,
      server,
      address,
      messages,
      signal,
      ready() {
        if (open) messages.warning(`'${host}' ${OPEN_TO_ALL}`);
        ready();
      },
      persistent: given.has('persistent'),
      pidFile: given.get('pid-file'),
    });
  } finally {
    await closeExports(exports);
  }
}

function refuseUnsupported(given: NbdArguments['given']): void {
  if (given.has('connect') || given.has('disconnect')) {
    throw new Failure('Kernel NBD devices are not supported; nbd-client(8) connects them to any server');
  }
  if (given.has('selinux-label')) throw new Failure('SELinux labels are not supported');
  if (given.has('tls-authz') && !given.has('tls-creds')) {
    throw new Failure('--tls-authz is not permitted without --tls-creds');
  }
  if (given.has('tls-hostname')) {
    const what = given.has('tls-creds') ? 'only permitted in list mode' : 'not permitted without --tls-creds';
    throw new Failure(`--tls-hostname is ${what}`);
  }
}

/** The socket that this process was started with, if it was; throws where the command line names another one (N-116). */
export function inheritedAddress(
  program: string,
  { socket, port, bind }: { readonly [name in 'socket' | 'port' | 'bind']: string | undefined },
): ListenAddress | undefined {
  const fd = inheritedSocket(program);
  if (fd === undefined) return undefined;
  const [what] = [
    socket === undefined ? undefined : 'Unix socket',
    bind === undefined ? undefined : 'The interface',
    port === undefined ? undefined : 'TCP port number',
  ].filter((name) => name !== undefined);
  if (what !== undefined) throw new Failure(`${what} can't be set when using socket activation`);
  return { kind: 'fd', fd };
}

function addressOf(program: string, given: NbdArguments['given']): ListenAddress {
  const [socket, port, bind] = ['socket', 'port', 'bind'].map((key) => given.get(key));
  const inherited = inheritedAddress(program, { socket, port, bind });
  if (inherited !== undefined) return inherited;
  if (socket !== undefined) {
    if (!socket.startsWith('/')) throw new Failure('socket path must be absolute');
    return { kind: 'unix', path: socket };
  }
  return { kind: 'tcp', host: bind, port: portOf(port, bind) };
}

/** A number, or the name of a service. Throws Failure; where there is no such service, in the system's words. */
export function portOf(text: string | undefined, host = 'localhost'): number {
  if (text === undefined) return DEFAULT_PORT;
  const [, number] = /^[ \t\n\v\f\r]*\+?(\d+)$/.exec(text) ?? [];
  const port = number === undefined ? servicePort(text) : Number(number);
  if (port === undefined) {
    throw new Failure(`address resolution failed for ${host}:${text}: Servname not supported for ai_socktype`);
  }
  if (port > 65535) throw new Failure(`Invalid port number '${text}': not between 0 and 65535`);
  return port;
}

async function serverOptions({ objects, messages }: Context, args: NbdArguments): Promise<NbdServerOptions> {
  const { given, shared, times } = args;
  const creds = given.get('tls-creds');
  const authz = given.get('tls-authz');
  const tls =
    creds === undefined
      ? undefined
      : serverTls(
          await objects.nbd.tlsCredentials(creds, 'server').catch((error: Error) => {
            throw new Failure(`Failed to get TLS creds: ${error.message}`, { cause: error });
          }),
          { required: true },
        );
  return {
    maxConnections: shared,
    handshakeTimeoutMs: times.handshake,
    idleTimeoutMs: times.idle,
    graceMs: times.grace,
    tls,
    log: (line) => messages.error(line),
    ...(authz !== undefined && { authorize: await authorizeBy(objects, authz) }),
  };
}

/** Lets in whom the authorization object of this id lets in, by what TLS has proved. Throws BlockError. */
export async function authorizeBy(
  objects: ObjectList,
  id: string,
): Promise<NonNullable<NbdServerOptions['authorize']>> {
  const allows = await objects.nbd.authorization(id);
  return async ({ identity }) => identity !== undefined && (await allows(identity.name));
}

/** N-115. */
export const OPEN_TO_ALL = 'may be reached from other machines, and without TLS anyone there can read and write';

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\./.test(host);
}
