/** Linux's numbers of error codes, which config files and wire protocols use on every system. */
import type { ErrorCode } from './errors.ts';

const NUMBERS: Readonly<Record<ErrorCode, number>> = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EPIPE: 32,
  EDOM: 33,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ELOOP: 40,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ENETUNREACH: 101,
  ECONNRESET: 104,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  ESTALE: 116,
  EDQUOT: 122,
  ENOMEDIUM: 123,
  ECANCELED: 125,
};
const CODES: ReadonlyMap<number, ErrorCode> = new Map(
  Object.entries(NUMBERS).map(([code, number]) => [number, code as ErrorCode]),
);

/** The number of a code. */
export function errnoNumber(code: ErrorCode): number {
  return NUMBERS[code];
}

/** The code of a number; EIO for one that has none here. */
export function errnoCode(number: number): ErrorCode {
  return CODES.get(number) ?? 'EIO';
}
