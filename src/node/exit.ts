/**
 * Ending a process sooner than Node does, most of all one whose threads hang in system calls. Node waits for its threads
 * when it ends, and nothing can take a thread out of a call to a disk that does not answer; only the end of the whole
 * process can. So if calls are under way when the program ends, it ends at once, after all listeners of `exit` were called.
 */
import { writeSync } from 'node:fs';
import { inspect } from 'node:util';
import { loadedKoffi } from './koffi.ts';

interface Caller {
  /** Whether a system call is under way. */
  readonly busy: boolean;
}

/** Those watched, and how each would end the process with a status; returns where it cannot. */
const callers = new Map<Caller, (status: number) => void>();
/** What nobody caught, and Node would print after the end that we put to it. */
let uncaught: { readonly error: unknown } | undefined;

/** Watches `caller`; with `exitNow` undefined no longer. */
export function endWithHungCalls(caller: Caller, exitNow: ((status: number) => void) | undefined): void {
  if (exitNow === undefined) callers.delete(caller);
  else callers.set(caller, exitNow);
  process.off('exit', onExit).off('uncaughtExceptionMonitor', onUncaught);
  if (callers.size > 0) process.on('exit', onExit).on('uncaughtExceptionMonitor', onUncaught);
}

function onUncaught(error: unknown): void {
  uncaught = process.listenerCount('uncaughtException') === 0 ? { error } : undefined;
}

function onExit(code: number): void {
  const exitNow = [...callers].find(([caller]) => caller.busy)?.[1];
  if (exitNow === undefined) return;
  const listeners = process.rawListeners('exit');
  try {
    for (const listener of listeners.slice(listeners.indexOf(onExit) + 1)) listener.call(process, code);
  } finally {
    if (uncaught !== undefined) complain(uncaught.error);
    exitNow(Number(process.exitCode ?? code));
    // Without system calls: better an end with the wrong status than none.
    process.kill(process.pid, 'SIGKILL');
  }
}

function complain(error: unknown): void {
  try {
    writeSync(2, `Uncaught ${inspect(error)}\n`);
  } catch {
    // Nobody listens.
  }
}

let wantsNodesEnd = false;

/** For who uses Node's streams of standard input and output: as it ends, it leaves terminals and pipes as they were before. */
export function leaveEndToNode(): void {
  wantsNodesEnd = true;
}

/**
 * Ends the process after all listeners of `exit`. Node would tidy up memory and threads, which takes milliseconds and comes
 * with the end of a process anyway; so it does only where it is to write what it was asked to find out about the program.
 */
export function endProcess(status: number): never {
  const { NODE_OPTIONS, NODE_V8_COVERAGE } = process.env;
  const isWatched = process.execArgv.length > 0 || NODE_OPTIONS !== undefined || NODE_V8_COVERAGE !== undefined;
  if (!wantsNodesEnd && !isWatched && process.platform === 'linux') {
    const exitNow = exitFunction();
    process.on('exit', (code) => exitNow?.(Number(process.exitCode ?? code)));
  }
  process.exit(status);
}

/** Undefined where there is none, or system calls were not needed. */
function exitFunction() {
  try {
    return loadedKoffi()?.load(null).func('void _exit(int status)');
  } catch {
    return undefined;
  }
}
