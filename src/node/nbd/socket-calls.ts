/** Sending and receiving on sockets without waiting and without the event loop, which costs more than the calls themselves. */
import { type Koffi, loadKoffi, type NativeFunction } from '../koffi.ts';

const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
/** What a unix socket may hold for a peer that is slower, bytes; the system may allow less. */
const SEND_BUFFER = 2 * 1024 * 1024;
/** Pieces that one call sends at most. */
const PIECES_MAX = 64;

/** Each answers with a number of bytes, or with -1 for whatever error: the event loop will meet it too. */
export interface SocketCalls {
  send(fd: number, pieces: readonly Uint8Array[]): number;
  /** 0: the other side has ended. */
  receive(fd: number, target: Uint8Array): number;
  /** Sends bytes of a file, which are not copied. */
  sendFile(fd: number, file: number, offset: number, length: number): number;
  /** Lets a unix socket hold several large answers: by itself not even one of 256 KiB fits, and both sides take turns at sleeping. */
  enlarge(fd: number): void;
}

let found: SocketCalls | null | undefined;

/** Undefined where the calls cannot be made. */
export function socketCalls(): SocketCalls | undefined {
  if (found === undefined) {
    try {
      found = process.platform === 'linux' ? bind(loadKoffi()) : null;
    } catch {
      found = null;
    }
  }
  return found ?? undefined;
}

function bind(koffi: Koffi): SocketCalls {
  const library = koffi.load(null);
  const send = library.func('int64_t send(int fd, void *data, size_t length, int flags)');
  const receive = library.func('int64_t recv(int fd, void *target, size_t length, int flags)');
  const setOption = library.func('int setsockopt(int fd, int level, int name, void *value, uint length)');
  const sendFile = library.func('int64_t sendfile(int fd, int file, void *offset, size_t length)');
  const fileOffset = new BigInt64Array(1);
  const sendMessage = gathering(koffi, library.func('int64_t sendmsg(int fd, void *message, int flags)'));
  return {
    send(fd, pieces) {
      const [first] = pieces;
      if (first === undefined || pieces.length > 1) return sendMessage(fd, pieces);
      return Number(send(fd, first, first.length, MSG_DONTWAIT | MSG_NOSIGNAL));
    },
    receive: (fd, target) => Number(receive(fd, target, target.length, MSG_DONTWAIT)),
    sendFile(fd, file, offset, length) {
      fileOffset[0] = BigInt(offset);
      return Number(sendFile(fd, file, fileOffset, length));
    },
    enlarge: (fd) => void setOption(fd, SOL_SOCKET, SO_SNDBUF, Int32Array.of(SEND_BUFFER), 4),
  };
}

function gathering(koffi: Koffi, sendMessage: NativeFunction): SocketCalls['send'] {
  // struct iovec: base, length.
  const vectors = new BigUint64Array(2 * PIECES_MAX);
  // struct msghdr: name, its length, vectors, their number, control, its length, flags.
  const message = new BigUint64Array(7);
  return (fd, pieces) => {
    const count = Math.min(pieces.length, PIECES_MAX);
    for (let index = 0; index < count; index++) {
      const piece = pieces[index] as Uint8Array;
      vectors[2 * index] = BigInt(koffi.address(piece));
      vectors[2 * index + 1] = BigInt(piece.length);
    }
    message[2] = BigInt(koffi.address(vectors));
    message[3] = BigInt(count);
    return Number(sendMessage(fd, message, MSG_DONTWAIT | MSG_NOSIGNAL));
  };
}
