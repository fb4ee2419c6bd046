/**
 * Ending a process whose threads hang in system calls. Node waits for its threads when it ends, and nothing can take a
 * thread out of a call to a disk that does not answer; only the end of the whole process can. So if calls are under way
 * when the program ends, it ends at once, after all listeners of `exit` were called.
 */
import { writeSync } from 'node:fs';
import { inspect } from 'node:util';

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
