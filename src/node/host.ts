/** The engine's host on Node. */
import diagnostics from 'node:diagnostics_channel';
import { closeSync, openSync, readSync } from 'node:fs';
import { BlockError } from '../core/errors.ts';
import type { Host, HostClock } from '../core/host.ts';
import type { ClientTls, ClientTlsRequest } from '../core/host-network.ts';
import { bulkLanes } from './bulk.ts';
import { nodeCodecs } from './codecs.ts';
import { NodeContext } from './context.ts';
import { nodeCrypto } from './crypto.ts';
import { NodeFiles } from './files.ts';
import { type Koffi, loadKoffi } from './koffi.ts';
import { monotonic } from './monotonic.ts';
import { Syscalls } from './syscalls.ts';

/** Options of {@link nodeHost}. */
export interface NodeHostOptions {
  /** Where warnings go: whole lines, without a program's prefix. Default: standard error. */
  readonly warn?: (message: string) => void;
  /** Where notices go (missing capabilities, fallbacks taken). Default: nowhere, or standard error if `verbose`. */
  readonly notice?: (message: string) => void;
  readonly verbose?: boolean;
  /** Loads the foreign-function library that system calls go through. What it throws is noted; files then do without. */
  readonly loadKoffi?: () => Koffi;
  /** Names of disks may say which files of this machine hold keys and certificates for TLS (N-4). Default false. */
  readonly allowNamedKeys?: boolean;
  /**
   * Nothing but the files' users waits for the event loop: system calls that are quick on local file systems are made on its
   * own thread, which takes a small part of the time. Default false.
   */
  readonly callsAtOnce?: boolean;
  /** Aborted when what uses the host is to end: NBD servers that do not answer are then given 5 s, and not waited for. */
  readonly interrupted?: AbortSignal;
  /** Time, for tests. */
  readonly clock?: HostClock;
}

/** Files, time, randomness and events of this machine. */
export function nodeHost(options: NodeHostOptions = {}): Host & Required<Pick<Host, 'createContext'>> {
  const clock = options.clock ?? systemClock;
  const toStderr = (message: string) => {
    process.stderr.write(`${message}\n`);
  };
  const notice = options.notice ?? (options.verbose ? toStderr : () => {});
  const syscalls = new Syscalls(notice, options.loadKoffi ?? loadKoffi);
  return {
    files: new NodeFiles(syscalls, () => clock.now(), options.callsAtOnce === true),
    clock,
    createContext: (name, settings) => new NodeContext(name, syscalls, settings),
    connect: async (address, how) => (await import('./nbd/connect.ts')).connectSocket(address, how),
    servicePort: async (name) => (await import('./nbd/services.ts')).servicePort(name),
    clientTls: (request) => loadTls(request, options.allowNamedKeys === true),
    bulkLanes,
    ...nodeCodecs(options.loadKoffi ?? loadKoffi),
    crypto: nodeCrypto,
    random,
    warn: options.warn ?? toStderr,
    notice,
    ...(options.interrupted && { interrupted: options.interrupted }),
    exit(message) {
      toStderr(message);
      process.exit(1);
    },
    watched: (channel) => diagnostics.hasSubscribers(channel),
    publish: (channel, message) => diagnostics.channel(channel).publish(message),
  };
}

async function loadTls(request: ClientTlsRequest, allowed: boolean): Promise<ClientTls> {
  if (!allowed && (request.certificates !== undefined || request.pskFile !== undefined)) {
    throw new BlockError('EACCES', 'The name of a disk may not say which files hold keys: see allowNamedKeys');
  }
  return (await import('./nbd/tls-client.ts')).loadClientTls(request);
}

/** The kernel's source of randomness where it is a file. */
const RANDOM_FILE = '/dev/urandom';
/** The most that one call of getRandomValues gives. */
const RANDOM_STEP = 65536;

function random(target: Uint8Array): void {
  if (!readRandomFile(target)) getRandom(target);
}

/** Takes microseconds, and the first use of Node's own source milliseconds. */
function readRandomFile(target: Uint8Array): boolean {
  let fd: number;
  try {
    fd = openSync(RANDOM_FILE, 'r');
  } catch {
    return false;
  }
  try {
    for (let done = 0; done < target.length; ) {
      const read = readSync(fd, target, done, target.length - done, null);
      if (read <= 0) return false;
      done += read;
    }
    return true;
  } catch {
    return false;
  } finally {
    closeSync(fd);
  }
}

function getRandom(target: Uint8Array): void {
  for (let start = 0; start < target.length; start += RANDOM_STEP) {
    globalThis.crypto.getRandomValues(target.subarray(start, start + RANDOM_STEP));
  }
}

/** Timers hold at most this many milliseconds. */
const LONGEST_TIMER = 2 ** 31 - 1;

const systemClock: HostClock = {
  now: monotonic,
  wall: () => Date.now(),
  sleep: (milliseconds, signal) => sleep(milliseconds, signal, true),
  rest: (milliseconds, signal) => sleep(milliseconds, signal, false),
};

/** `stays`: the program does not end before. */
async function sleep(milliseconds: number, signal: AbortSignal | undefined, stays: boolean): Promise<void> {
  const until = monotonic() + milliseconds;
  // Timers go off up to a millisecond early, and nobody would wake who looks at the clock then and finds it too early.
  for (let left = milliseconds; ; ) {
    await sleepOnce(Math.max(0, Math.min(left, LONGEST_TIMER)), signal, stays);
    left = until - monotonic();
    if (left <= 0) return;
  }
}

function sleepOnce(milliseconds: number, signal: AbortSignal | undefined, stays: boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, milliseconds);
    if (!stays) timer.unref();
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
