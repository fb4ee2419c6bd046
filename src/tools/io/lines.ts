/** Lines of standard input that is no terminal (T-IO-3). */

export interface LineSource {
  /** The next line without its end; undefined: there are no more. A promise only where it takes waiting. */
  next(): string | undefined | Promise<string | undefined>;
  /** Something was printed while this waits: where a prompt was shown, it is shown again. */
  interrupted(): void;
  close(): void;
}

/** So many characters at hand, and no more are read until they are used. */
const AHEAD_MAX = 1 << 16;

/** `prompt` is called before each line. */
export function pipedLines(input: NodeJS.ReadStream, prompt: () => void): LineSource {
  let text = '';
  let ended = false;
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
      await more;
    }
  };
  return {
    next() {
      prompt();
      return take() ?? wait();
    },
    interrupted() {},
    close: () => void input.destroy(),
  };
}
