/**
 * The one error class of the library. `code` is stable and is what programs match on;
 * the message is for people, and wordings that the specification gives are kept to the letter.
 */

/** Error codes with the text the C library gives them, so that messages match those of other tools. */
const ERROR_TEXT = {
  E2BIG: 'Argument list too long',
  EACCES: 'Permission denied',
  EAGAIN: 'Resource temporarily unavailable',
  EBADF: 'Bad file descriptor',
  EBUSY: 'Device or resource busy',
  ECANCELED: 'Operation canceled',
  ECONNREFUSED: 'Connection refused',
  ECONNRESET: 'Connection reset by peer',
  EDOM: 'Numerical argument out of domain',
  EDQUOT: 'Disk quota exceeded',
  EEXIST: 'File exists',
  EFBIG: 'File too large',
  EHOSTUNREACH: 'No route to host',
  EINTR: 'Interrupted system call',
  EINVAL: 'Invalid argument',
  EIO: 'Input/output error',
  EISDIR: 'Is a directory',
  ELOOP: 'Too many levels of symbolic links',
  EMFILE: 'Too many open files',
  ENAMETOOLONG: 'File name too long',
  ENETUNREACH: 'Network is unreachable',
  ENFILE: 'Too many open files in system',
  ENODEV: 'No such device',
  ENOENT: 'No such file or directory',
  ENOMEDIUM: 'No medium found',
  ENOMEM: 'Cannot allocate memory',
  ENOSPC: 'No space left on device',
  ENOTDIR: 'Not a directory',
  ENOTSUP: 'Operation not supported',
  ENOTTY: 'Inappropriate ioctl for device',
  ENXIO: 'No such device or address',
  EOVERFLOW: 'Value too large for defined data type',
  EPERM: 'Operation not permitted',
  EPIPE: 'Broken pipe',
  ERANGE: 'Numerical result out of range',
  EROFS: 'Read-only file system',
  ESPIPE: 'Illegal seek',
  ESTALE: 'Stale file handle',
  ETIMEDOUT: 'Connection timed out',
  ETXTBSY: 'Text file busy',
  EXDEV: 'Invalid cross-device link',
} as const;

/** Codes a {@link BlockError} carries: errno names. A corrupt image is `EIO` on reading, `EINVAL` or `ENOTSUP` on opening. */
export type ErrorCode = keyof typeof ERROR_TEXT;

/** What an error tells beside code and message. */
export interface BlockErrorDetails {
  /** Name of the node the error arose at. */
  readonly node?: string | undefined;
  readonly cause?: unknown;
  /** Advice printed below the message, without the program's prefix. May hold several lines. */
  readonly hint?: string | undefined;
  /** Who stands in the way of a lock, as a sentence; a further hint where that may be said. */
  readonly holder?: string | undefined;
}

/** All that is wrong with images, files and requests. `code` is stable, to be matched on; `message` is for people (docs/errors.md). */
export class BlockError extends Error {
  override readonly name = 'BlockError';
  readonly code: ErrorCode;
  /** Name of the node it arose at. */
  readonly node: string | undefined;
  /** Advice, in lines. */
  readonly hint: string | undefined;
  /** Who stands in the way of a lock, as a sentence. */
  readonly holder: string | undefined;

  constructor(code: ErrorCode, message: string, details: BlockErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.node = details.node;
    this.hint = details.hint;
    this.holder = details.holder;
  }
}

/** The C library's text of `code`, e.g. `No such file or directory`. */
export function errorText(code: ErrorCode): string {
  return ERROR_TEXT[code];
}

/** A message followed by `: ` and the system's text of `code` ("+errno" in the specification). */
export function withErrno(code: ErrorCode, message: string, details: BlockErrorDetails = {}): BlockError {
  return new BlockError(code, `${message}: ${errorText(code)}`, details);
}

/** The code of any thrown value: its own `code` when that is one of ours, else `EIO`. */
export function codeOf(error: unknown): ErrorCode {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  if (code === 'EOPNOTSUPP') return 'ENOTSUP';
  return typeof code === 'string' && Object.hasOwn(ERROR_TEXT, code) ? (code as ErrorCode) : 'EIO';
}

/**
 * Any thrown value as a BlockError: ours as they are, a host's error (Node's have an errno name as `code`)
 * with the system's text. Programming errors (TypeError and the like) are not disguised: they are thrown on.
 */
export function asBlockError(error: unknown): BlockError {
  if (error instanceof BlockError) return error;
  const code = (error as { code?: unknown } | null | undefined)?.code;
  if (typeof code !== 'string' || !/^E[A-Z0-9]+$/.test(code)) throw error;
  return new BlockError(codeOf(error), errorText(codeOf(error)), { cause: error });
}

/** Wraps the failure of an operation: `context: message`, keeping code, node, hint and cause. */
export function addContext(context: string, error: unknown): BlockError {
  const inner = asBlockError(error);
  return new BlockError(inner.code, `${context}: ${inner.message}`, {
    node: inner.node,
    hint: inner.hint,
    holder: inner.holder,
    cause: inner,
  });
}

/** ENOTSUP: what a node's driver cannot do. */
export function notSupported(
  node: { readonly name: string; readonly driver: { readonly name: string } },
  what: string,
): BlockError {
  return new BlockError('ENOTSUP', `Driver '${node.driver.name}' does not support ${what}`, { node: node.name });
}
