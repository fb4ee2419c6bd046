/**
 * Contexts: threads of their own for the blocking calls of some files (BL-CTX-5). Node's pool has four threads for the
 * whole process, so four calls that hang in one disk would stop every other file. A context's threads are workers, since
 * whatever else runs beside the event loop runs in that pool.
 */
import { BlockError } from '../core/errors.ts';
import type { HostContext, HostContextOptions } from '../core/host.ts';
import type { BlockingCalls } from './calls.ts';
import { threadCalls } from './context-calls.ts';
import { ContextThread, type ThreadCall, type ThreadJob } from './context-thread.ts';
import { endWithHungCalls } from './exit.ts';
import type { Syscalls } from './syscalls.ts';

const DEFAULT_THREADS = 4;
const MOST_THREADS = 64;
/** A thread takes milliseconds to start and megabytes to keep. */
const IDLE_MS = 30_000;

export interface NodeContextOptions extends HostContextOptions {
  /** How long a thread without work lives, in milliseconds. */
  readonly idleMs?: number;
}

export class NodeContext implements HostContext {
  readonly name: string;
  /** The calls of files, made in this context. */
  readonly calls: BlockingCalls;
  readonly #syscalls: Syscalls;
  readonly #limit: number;
  readonly #idleMs: number;
  readonly #threads = new Set<ContextThread>();
  /** Threads without a job, the one used last at the end. */
  #idle: ContextThread[] = [];
  readonly #waiting: ThreadJob[] = [];
  #files = 0;
  #closed = false;
  #whenEnded: (() => void)[] = [];

  /** Throws TypeError for a limit out of range, BlockError ENOTSUP outside the main thread. */
  constructor(name: string, syscalls: Syscalls, options: NodeContextOptions = {}) {
    const { threads = DEFAULT_THREADS, idleMs = IDLE_MS } = options;
    if (!Number.isInteger(threads) || threads < 1 || threads > MOST_THREADS) {
      throw new TypeError(`A context has 1 to ${MOST_THREADS} threads, not ${threads}`);
    }
    // A worker cannot end the process while a thread hangs, and when it ends closes files by numbers that may be others' by then.
    if (!process.getBuiltinModule('node:worker_threads').isMainThread) {
      throw new BlockError('ENOTSUP', `Cannot create context '${name}': only the main thread has contexts`);
    }
    this.name = name;
    this.calls = threadCalls(this, syscalls);
    this.#syscalls = syscalls;
    this.#limit = threads;
    this.#idleMs = idleMs;
    endWithHungCalls(this, (status) => syscalls.exitNow(status));
  }

  /** Threads there are now. */
  get threads(): number {
    return this.#threads.size;
  }

  /** Whether a system call is under way. */
  get busy(): boolean {
    return [...this.#threads].some((thread) => thread.busy);
  }

  /** A file joins. Throws BlockError ECANCELED when the context is closed. */
  enter(): void {
    if (this.#closed) throw this.#closedError();
    this.#files++;
  }

  /** A file leaves; its calls under way end here. */
  leave(): void {
    this.#files--;
  }

  /**
   * Makes a call in one of the threads, when one is free. `memory`: what the call is given the address of.
   * Rejects with what a function of node:fs throws, as BlockError.
   */
  run(call: ThreadCall, memory?: Uint8Array): Promise<unknown> {
    if (this.#closed) return Promise.reject(this.#closedError());
    return new Promise((resolve, reject) => {
      this.#waiting.push({ call, memory, resolve, reject });
      this.#dispatch();
    });
  }

  async close(): Promise<void> {
    if (this.#files > 0) throw new BlockError('EBUSY', `Context '${this.name}' is in use`);
    this.#closed = true;
    for (const thread of this.#idle.splice(0)) thread.end();
    if (this.#threads.size > 0) await new Promise<void>((resolve) => this.#whenEnded.push(resolve));
    endWithHungCalls(this, undefined);
  }

  #closedError(): BlockError {
    return new BlockError('ECANCELED', `Context '${this.name}' is closed`);
  }

  #dispatch(): void {
    while (this.#waiting.length > 0) {
      const thread = this.#idle.pop() ?? this.#start();
      if (thread === undefined) return;
      const job = this.#waiting.shift();
      if (job !== undefined) thread.begin(job);
    }
  }

  /** Undefined: there are as many as there may be. When the system has no more threads, those that are there must do. */
  #start(): ContextThread | undefined {
    if (this.#threads.size >= this.#limit) return undefined;
    try {
      const thread = new ContextThread({
        name: this.name,
        koffiFiles: this.#syscalls.koffiFiles(),
        idleMs: this.#idleMs,
        free: (freed) => this.#next(freed),
        unused: (unused) => {
          this.#idle = this.#idle.filter((other) => other !== unused);
          unused.end();
        },
        ended: (ended) => this.#ended(ended),
      });
      this.#threads.add(thread);
      return thread;
    } catch (cause) {
      if (this.#threads.size > 0) return undefined;
      const text = `Cannot start a thread of context '${this.name}'`;
      for (const job of this.#waiting.splice(0)) job.reject(new BlockError('EAGAIN', text, { cause }));
      return undefined;
    }
  }

  #next(thread: ContextThread): void {
    const job = this.#waiting.shift();
    if (job !== undefined) thread.begin(job);
    else if (this.#closed) thread.end();
    else this.#idle.push(thread);
  }

  #ended(thread: ContextThread): void {
    this.#threads.delete(thread);
    this.#idle = this.#idle.filter((other) => other !== thread);
    this.#dispatch();
    if (this.#threads.size > 0) return;
    for (const resolve of this.#whenEnded.splice(0)) resolve();
  }
}
