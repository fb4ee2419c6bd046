/** Error numbers of this machine's kernel as our error codes. */
import { constants } from 'node:os';
import { BlockError, codeOf, errorText } from '../core/errors.ts';

const { errno } = constants;

/** What a call is answered with where it does not exist. */
export const NOT_SUPPORTED = errno.EOPNOTSUPP;

const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(errno).map(([name, number]) => [number, name]));

/** Numbers that say "this file cannot do that": callers then do it another way. */
const MEANS_UNSUPPORTED: ReadonlySet<number> = new Set([
  errno.ENOTSUP,
  errno.EOPNOTSUPP,
  errno.ENOSYS,
  errno.ENODEV,
  errno.ENOTTY,
]);

/** The error of a system call that failed with `number` (positive). */
export function systemError(number: number): BlockError {
  if (MEANS_UNSUPPORTED.has(number)) return new BlockError('ENOTSUP', errorText('ENOTSUP'));
  const code = codeOf({ code: NAMES.get(number) });
  return new BlockError(code, errorText(code));
}
