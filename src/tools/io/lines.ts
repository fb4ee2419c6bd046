/** Lines of standard input that is no terminal (T-IO-3). */
import type { HeldOutput } from '../output/stream.ts';

export interface LineSource {
  /** The next line without its end; undefined: there are no more. A promise only where it takes waiting. */
  next(): string | undefined | Promise<string | undefined>;
  /** Something was printed: if this waits, it is shown now, and a terminal's prompt once more. */
  interrupted(): void;
  close(): void;
}

/** So many characters at hand, and no more are read until they are used. */
const AHEAD_MAX = 1 << 16;

/** What stands in the output's buffer is let out before a line is waited for, and when something comes meanwhile. */
export function pipedLines(input: NodeJS.ReadStream, out: HeldOutput, prompt: string): LineSource {
  let text = '';
  let ended = false;
  let waiting = false;
  let wake = () => {};
  const end = () => {
    ended = true;
    wake();
  };
  input.setEncoding('utf8');
  input.on('data', (piece: string) => {
    text += piece;
    if (text.length > AHEAD_MAX && text.includes('\n')) input.pause();
    wake();
  });
  // What cannot be read ends here too.
  input.on('end', end).on('error', end);
  const take = (): string | undefined => {
    const stop = text.indexOf('\n');
    if (stop < 0 && !(ended && text !== '')) return undefined;
    const line = stop < 0 ? text : text.slice(0, stop);
    text = stop < 0 ? '' : text.slice(stop + 1);
    return line;
  };
  const wait = async (): Promise<string | undefined> => {
    for (;;) {
      const line = take();
      if (line !== undefined || ended) return line;
      const more = new Promise<void>((resolve) => {
        wake = resolve;
      });
      input.resume();
      waiting = true;
      await more;
      waiting = false;
    }
  };
  return {
    next() {
      out.write(prompt);
      out.flush();
      return take() ?? wait();
    },
    interrupted() {
      if (waiting) out.flush();
    },
    close: () => void input.destroy(),
  };
}
