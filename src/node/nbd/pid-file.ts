/** A file with the number of this process in it (N-113). */
import { readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { BlockError, codeOf, errorText } from '../../core/errors.ts';

/** Throws BlockError. */
export function writePidFile(path: string): void {
  try {
    writeFileSync(path, `${process.pid}\n`, { mode: 0o600 });
  } catch (cause) {
    throw new BlockError(codeOf(cause), `Could not create '${path}': ${errorText(codeOf(cause))}`, { cause });
  }
}

/** Unless another process has put its number there. */
export function removePidFile(path: string): void {
  try {
    if (readFileSync(path, 'utf8') === `${process.pid}\n`) unlinkSync(path);
  } catch {
    // It is gone already.
  }
}
