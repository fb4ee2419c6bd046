/** A thread that does jobs of coding. */
import type { Worker } from 'node:worker_threads';
import { bindCoder } from './coders.ts';
import { type SharedJobs, takerOf } from './coding-jobs.ts';

/**
 * What it runs: as text, for the reason that context-thread.ts gives, made of functions that use nothing from outside. What
 * it throws ends it.
 */
const program = () => `
const { parentPort, workerData } = require('node:worker_threads');
const bindCoder = ${bindCoder};
const takerOf = ${takerOf};
const { koffiFiles, jobs, taker, idleMs } = workerData;
let koffi;
for (const file of koffiFiles) {
  try {
    koffi = require(file);
    break;
  } catch {}
}
const coders = [];
const coderOf = (coding) => (coders[coding] ??= bindCoder(koffi, coding));
takerOf(jobs, taker, coderOf).runAll(idleMs, () => parentPort.postMessage(0));
`;

export interface CodingThreadOptions {
  readonly jobs: SharedJobs;
  /** Its number, from FIRST_TAKER on. */
  readonly taker: number;
  readonly koffiFiles: readonly string[];
  /** A thread with nothing to do ends after so many milliseconds. */
  readonly idleMs: number;
  /** A job is done that the owner waited for. */
  told(): void;
  /** The thread is no more. `failed`: it did not end by itself; jobs that it took may not be done. */
  ended(failed: boolean): void;
}

/** Starts one; it keeps the program running only while it is held by `ref`. Throws when the system has no more threads. */
export function startCodingThread({ told, ended, ...workerData }: CodingThreadOptions): Worker {
  // Loaded late, since it takes milliseconds and few programs need it.
  const { Worker } = process.getBuiltinModule('node:worker_threads');
  const worker = new Worker(program(), {
    eval: true,
    workerData,
    execArgv: [],
    stdin: false,
    trackUnmanagedFds: false,
  });
  let failed = false;
  worker.on('message', () => told());
  worker.on('error', () => {
    failed = true;
  });
  worker.on('exit', (code) => ended(failed || code !== 0));
  worker.unref();
  return worker;
}
