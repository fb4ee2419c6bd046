/** Linux's abstract sockets. Node fills their names up with NULs, which makes names of them that other programs do not use. */
import { closeSync } from 'node:fs';
import { getSystemErrorName } from 'node:util';
import { BlockError, errorText } from '../../core/errors.ts';
import { type Koffi, loadKoffi } from '../koffi.ts';

const AF_UNIX = 1;
/** SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC: it connects at once or not at all. */
const STREAM_AT_ONCE = 1 | 0x800 | 0x80000;
/** A name's place in an address, bytes. */
const NAME_AT = 2;
const NAME_MAX = 108;

/** The descriptor of a socket that is connected to `name`, which begins with a NUL. Throws what the system says, by its code. */
export function connectAbstract(name: string): number {
  const bytes = Buffer.from(name);
  if (bytes.length > NAME_MAX) throw new BlockError('ENAMETOOLONG', errorText('ENAMETOOLONG'));
  const koffi = foreignFunctions();
  const library = koffi.load(null);
  const socket = library.func('int socket(int domain, int type, int protocol)');
  const connect = library.func('int connect(int fd, void *address, uint length)');
  const failure = () => Object.assign(new Error('connect'), { code: getSystemErrorName(-koffi.errno()) });
  const address = Buffer.alloc(NAME_AT + bytes.length);
  new Uint16Array(address.buffer, address.byteOffset, 1)[0] = AF_UNIX;
  bytes.copy(address, NAME_AT);
  const fd = Number(socket(AF_UNIX, STREAM_AT_ONCE, 0));
  if (fd < 0) throw failure();
  if (Number(connect(fd, address, address.length)) === 0) return fd;
  const error = failure();
  closeSync(fd);
  throw error;
}

function foreignFunctions(): Koffi {
  try {
    return loadKoffi();
  } catch (cause) {
    throw new BlockError('ENOTSUP', errorText('ENOTSUP'), { cause });
  }
}
