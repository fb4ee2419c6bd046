/** The program itself: `abort`, `sigraise`, `sleep`, `quit` (T-SIG-1, T-SLEEP-1). */
import type { IoCommand } from './command.ts';
import { refuse } from './failure.ts';
import { millisecondsOf, sizeOf } from './numbers.ts';

export const quitCommand: IoCommand = {
  name: 'quit',
  alias: 'q',
  min: 0,
  withoutImage: true,
  summary: 'exit the program',
  run(session) {
    session.quitting = true;
  },
};

export const abortCommand: IoCommand = {
  name: 'abort',
  min: 0,
  max: 0,
  withoutImage: true,
  summary: 'simulate a program crash using abort(3)',
  run: () => raise('SIGABRT'),
};

/** The number of signals, which no signal has. */
const SIGNALS = 65;

export const sigraiseCommand: IoCommand = {
  name: 'sigraise',
  min: 1,
  max: 1,
  withoutImage: true,
  usage: 'signal',
  summary: 'raises a signal',
  details: `
 Sends the program the signal of this number, after all that was printed so far.

 Example:
 'sigraise 9' - ends the program without closing the image`,
  run(session, { words: [text = ''] }) {
    const signal = sizeOf(text);
    if (signal > SIGNALS) refuse(`signal argument '${text}' is too large to be a valid signal`);
    session.context.out.flush();
    if (signal > 0 && signal < SIGNALS) raise(signal);
  },
};

const pause = new Int32Array(new SharedArrayBuffer(4));

/** Sends the signal; one that ends the program has done so before the next command. */
function raise(signal: number | 'SIGABRT'): void {
  process.kill(process.pid, signal);
  Atomics.wait(pause, 0, 0, 20);
}

export const sleepCommand: IoCommand = {
  name: 'sleep',
  min: 1,
  max: 1,
  withoutImage: true,
  summary: 'waits for the given value in milliseconds',
  run: (session, { words: [text = ''] }) => session.graph.host.clock.sleep(millisecondsOf(text)),
};
