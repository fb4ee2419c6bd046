/**
 * Ending a process whose threads hang in system calls. Node waits for its threads when it ends, and nothing can take a
 * thread out of a call to a disk that does not answer; only the end of the whole process can. So if calls are under way
 * when the program ends, it ends at once, after all listeners of `exit` were called.
 */

interface Caller {
  /** Whether a system call is under way. */
  readonly busy: boolean;
}

/** Those watched, and how each would end the process with a status; returns where it cannot. */
const callers = new Map<Caller, (status: number) => void>();

/** Watches `caller`; with `exitNow` undefined no longer. */
export function endWithHungCalls(caller: Caller, exitNow: ((status: number) => void) | undefined): void {
  if (exitNow === undefined) callers.delete(caller);
  else callers.set(caller, exitNow);
  process.off('exit', onExit);
  if (callers.size > 0) process.on('exit', onExit);
}

function onExit(code: number): void {
  const exitNow = [...callers].find(([caller]) => caller.busy)?.[1];
  if (exitNow === undefined) return;
  const listeners = process.rawListeners('exit');
  try {
    for (const listener of listeners.slice(listeners.indexOf(onExit) + 1)) listener.call(process, code);
  } finally {
    exitNow(Number(process.exitCode ?? code));
    // Without system calls: better an end with the wrong status than none.
    process.kill(process.pid, 'SIGKILL');
  }
}
