/** Standard input and output as a connection, for one client that started the server (N-110). */
import type { ByteStream, ByteStreamListener } from '../../core/byte-stream.ts';

export function stdioStream(): ByteStream {
  const { stdin, stdout } = process;
  let listener: ByteStreamListener | undefined;
  let over = false;
  const finish = (error?: Error) => {
    if (over) return;
    over = true;
    stdin.pause();
    listener?.close(error);
  };
  return {
    peer: 'stdio',
    listen(next) {
      const first = listener === undefined;
      listener = next;
      if (!first) return;
      stdin.on('data', (bytes: Uint8Array) => listener?.data(bytes));
      stdin.on('end', () => listener?.end());
      stdin.on('error', finish);
      stdout.on('error', finish);
    },
    write(pieces, done) {
      if (over) return queueMicrotask(done);
      stdout.cork();
      pieces.forEach((piece, index) => {
        if (index < pieces.length - 1) stdout.write(piece);
        else stdout.write(piece, () => done());
      });
      stdout.uncork();
    },
    // Standard output cannot be ended; when it has taken all, nothing is left to do.
    end: () => void stdout.write(new Uint8Array(0), () => finish()),
    destroy: () => queueMicrotask(finish),
    pause: () => void stdin.pause(),
    resume: () => void stdin.resume(),
  };
}
