import { formatOfName } from '../../jobs/format-guess.ts';
import type { Dialect } from '../dialect.ts';

/** The format of a new image, where the command line does not say. qemu-img does not guess. */
export function guessFormat(dialect: Dialect, filename: string | undefined): string {
  return dialect.qemu ? 'raw' : formatOfName(filename ?? '');
}
