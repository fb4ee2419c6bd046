/** A new, empty file for data that nobody keeps (BL-MISC-1). */
import { BlockError, codeOf, withErrno } from './errors.ts';
import type { Host } from './host.ts';

const LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789';
/** Names tried before it is said that there are none left. */
const TRIES = 100;

/** Makes one that only this user may read; resolves with its name. Throws BlockError. */
export async function makeTemporaryFile(host: Host): Promise<string> {
  const folder = host.files.temporaryFolder;
  if (folder === undefined) throw withErrno('ENOTSUP', 'Could not get temporary filename');
  for (let tries = 0; ; tries++) {
    const filename = `${folder}/vl.${randomLetters(host)}`;
    try {
      const file = await host.files.open(filename, { write: true, create: 'new', createMode: 0o600 });
      await file.close();
      return filename;
    } catch (cause) {
      if (codeOf(cause) === 'EEXIST' && tries < TRIES) continue;
      if (!(cause instanceof BlockError)) throw cause;
      throw withErrno(cause.code, `Could not open temporary file '${filename}'`, { cause });
    }
  }
}

function randomLetters(host: Host): string {
  const bytes = new Uint8Array(6);
  host.random(bytes);
  return Array.from(bytes, (byte) => LETTERS[byte % LETTERS.length]).join('');
}
