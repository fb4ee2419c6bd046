/** SIGINT, SIGTERM and SIGHUP: work that can clean up after itself is aborted first, then the signal takes its course. */

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** timeout(1) sends its signal to the process and to its group: what comes so soon after is not a person losing patience. */
const SAME_SIGNAL_MS = 300;

const controller = new AbortController();
/** The same as {@link interruptSignal}'s, for who has nothing to clean up: until someone asks for that, signals end the process. */
export const interruption: AbortSignal = controller.signal;
let handled = false;
let received: NodeJS.Signals | undefined;

/** Aborted by the first such signal from now on; a second one, a moment later, ends the process at once. */
export function interruptSignal(): AbortSignal {
  if (handled) return interruption;
  handled = true;
  let first = 0;
  const onSignal = (signal: NodeJS.Signals) => {
    if (received === undefined) {
      received = signal;
      first = performance.now();
      controller.abort();
    } else if (performance.now() - first > SAME_SIGNAL_MS) {
      ignoreFromNowOn();
      process.kill(process.pid, signal);
    }
  };
  const ignoreFromNowOn = () => {
    for (const name of SIGNALS) process.off(name, onSignal);
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  return interruption;
}

/** The signal that aborted the work, if one did. */
export function interruptedBy(): NodeJS.Signals | undefined {
  return received;
}

/** Ends the process as `signal` does by default, for the parent to see. What is held back of stdout is lost (T-GEN-3). */
export function endBySignal(signal: NodeJS.Signals): Promise<never> {
  for (const name of SIGNALS) process.removeAllListeners(name);
  process.kill(process.pid, signal);
  // It arrives in a moment.
  return new Promise(() => setTimeout(() => {}, 10_000));
}
