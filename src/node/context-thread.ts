/** One thread of a context: a worker that makes one system call after the other, and may hang in it. */
import type { Worker } from 'node:worker_threads';
import { asBlockError, BlockError } from '../core/errors.ts';

/** A synchronous function of node:fs, or a C function, which answers with its result or the negated error number. */
export type ThreadCall =
  | { readonly fs: string; readonly parameters: readonly unknown[] }
  | { readonly prototype: string; readonly parameters: readonly unknown[] };

export interface ThreadJob {
  readonly call: ThreadCall;
  /** Memory whose address is among the parameters: not to be freed before the call returns. */
  readonly memory?: Uint8Array | undefined;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

interface Reply {
  readonly value?: unknown;
  readonly error?: { readonly code: unknown; readonly message: string };
}

/**
 * What the worker runs. As text, because a worker is started from a file, and the library is read from TypeScript, from
 * ES modules and from one-file bundles alike.
 */
const PROGRAM = `
const { parentPort, workerData } = require('node:worker_threads');
const fs = require('node:fs');
const { EINTR } = require('node:os').constants.errno;
const bound = new Map();
let koffi, library;

function load() {
  for (const file of workerData.koffiFiles) {
    try {
      koffi = require(file);
      break;
    } catch {}
  }
  return koffi.load(null);
}

function native(prototype, parameters) {
  let call = bound.get(prototype);
  if (call === undefined) {
    library ??= load();
    bound.set(prototype, (call = library.func(prototype)));
  }
  for (;;) {
    const result = Number(call(...parameters));
    if (result >= 0) return result;
    const number = koffi.errno();
    if (number !== EINTR) return -number;
  }
}

function byNode(name, parameters) {
  for (;;) {
    try {
      return fs[name](...parameters);
    } catch (error) {
      if (error.code !== 'EINTR') throw error;
    }
  }
}

parentPort.on('message', (call) => {
  try {
    const value = call.prototype ? native(call.prototype, call.parameters) : byNode(call.fs, call.parameters);
    parentPort.postMessage({ value });
  } catch (error) {
    parentPort.postMessage({ error: { code: error.code, message: error.message } });
  }
});
`;

export interface ThreadOptions {
  /** Name of the context. */
  readonly name: string;
  readonly koffiFiles: readonly string[];
  /** How long a thread without a job lives, in milliseconds. */
  readonly idleMs: number;
  /** A job is done: the thread may have another, or be ended. */
  readonly free: (thread: ContextThread) => void;
  /** The thread had no job for long: it may be ended. */
  readonly unused: (thread: ContextThread) => void;
  /** The thread is no more, asked to or not. */
  readonly ended: (thread: ContextThread) => void;
}

export class ContextThread {
  readonly #worker: Worker;
  readonly #options: ThreadOptions;
  readonly #idleTimer: NodeJS.Timeout;
  #job: ThreadJob | undefined;

  /** Throws when the system has no more threads. */
  constructor(options: ThreadOptions) {
    this.#options = options;
    // Loaded late, since it takes milliseconds and few programs need it.
    const { Worker } = process.getBuiltinModule('node:worker_threads');
    this.#worker = new Worker(PROGRAM, {
      eval: true,
      name: options.name,
      workerData: { koffiFiles: options.koffiFiles },
      // Loaders that the program was started with have no business here.
      execArgv: [],
      // Files outlive the thread that happened to open them.
      trackUnmanagedFds: false,
    });
    this.#worker.on('message', (reply: Reply) => this.#finish(reply));
    this.#worker.on('error', (error) => this.#fail(error));
    this.#worker.on('exit', () => {
      clearTimeout(this.#idleTimer);
      this.#fail(undefined);
      options.ended(this);
    });
    this.#worker.unref();
    this.#idleTimer = setTimeout(() => {
      if (this.#job === undefined) options.unused(this);
    }, options.idleMs).unref();
  }

  /** In a call. */
  get busy(): boolean {
    return this.#job !== undefined;
  }

  /** Begins a job; none may be under way. A thread with a job keeps the program running, as a request of the pool does. */
  begin(job: ThreadJob): void {
    this.#job = job;
    this.#worker.ref();
    this.#worker.postMessage(job.call);
  }

  /** Ends a thread without a job. */
  end(): void {
    void this.#worker.terminate();
  }

  #finish(reply: Reply): void {
    const job = this.#take();
    if (reply.error === undefined) job?.resolve(reply.value);
    else job?.reject(asError(reply.error));
    this.#idleTimer.refresh();
    this.#options.free(this);
  }

  #fail(cause: unknown): void {
    const text = `Cannot run a thread of context '${this.#options.name}'`;
    this.#take()?.reject(new BlockError('EAGAIN', text, { cause }));
  }

  #take(): ThreadJob | undefined {
    const job = this.#job;
    this.#job = undefined;
    if (job !== undefined) this.#worker.unref();
    return job;
  }
}

/** An error of a system call as ours, any other as the mistake it is. */
function asError({ code, message }: { readonly code: unknown; readonly message: string }): unknown {
  const error = Object.assign(new Error(message), { code });
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? asBlockError(error) : error;
}
