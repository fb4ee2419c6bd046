/** A file with the number of this process in it (N-113). */
import { lstatSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { BlockError, codeOf, errorText } from '../../core/errors.ts';

/** The number is there as soon as the file is: who waits for the one reads the other. Throws BlockError. */
export function writePidFile(path: string): void {
  const text = `${process.pid}\n`;
  try {
    const there = lstatSync(path, { throwIfNoEntry: false });
    if (there === undefined || there.isFile()) writeWhole(path, text);
    else writeFileSync(path, text);
  } catch (cause) {
    throw new BlockError(codeOf(cause), `Could not create '${path}': ${errorText(codeOf(cause))}`, { cause });
  }
}

function writeWhole(path: string, text: string): void {
  const made = `${path}.${process.pid}`;
  try {
    writeFileSync(made, text, { mode: 0o600 });
    renameSync(made, path);
  } catch (error) {
    rmSync(made, { force: true });
    throw error;
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
