/** The words of the command line as they were typed. */
import { readFileSync } from 'node:fs';
import { Failure } from '../failure.ts';

/** What Node puts for bytes that are no UTF-8. */
const REPLACEMENT = '\ufffd';

/**
 * Throws Failure when Node has changed a word, since it is no UTF-8: another file would be made, or looked for. `words` are
 * the last of the process's; where the system does not tell them in bytes, they are taken as they are.
 */
export function refuseChangedWords(words: readonly string[], typed: () => Uint8Array = commandLine): void {
  if (!words.some((word) => word.includes(REPLACEMENT))) return;
  // Each ends with a zero byte; characters are bytes.
  const all = Buffer.from(typed()).toString('latin1').split('\0').slice(0, -1);
  const own = all.slice(-words.length);
  const index = own.findIndex(
    (word) => !Buffer.from(Buffer.from(word, 'latin1').toString('utf8')).equals(Buffer.from(word, 'latin1')),
  );
  if (index < 0) return;
  throw new Failure(`Argument ${index + 1}, '${words[index]}', is not valid UTF-8, and names no file here`);
}

function commandLine(): Uint8Array {
  try {
    return readFileSync('/proc/self/cmdline');
  } catch {
    return new Uint8Array();
  }
}
