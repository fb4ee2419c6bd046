/** A conversation with a server that ends before transmission: what it exports (N-118). */
import { connect, type Socket } from 'node:net';
import { BlockError, codeOf, errorText } from '../../core/errors.ts';
import { ByteQueue } from '../../nbd/byte-queue.ts';
import type { ByteStream } from '../../nbd/byte-stream.ts';
import { addressText, type ServerAddress } from '../../nbd/client/address.ts';
import { describeExport, type ExportDescription } from '../../nbd/client/describe-export.ts';
import { abort, type HandshakeDemand, listExports } from '../../nbd/client/handshake.ts';
import { socketStream } from './socket-stream.ts';

export interface InquiredExport extends ExportDescription {
  readonly name: string;
}

export interface InquiryOptions {
  readonly address: ServerAddress;
  /** The client's side of TLS on a stream; absent: without TLS. */
  readonly startTls?: ((stream: ByteStream) => Promise<ByteStream>) | undefined;
}

/** So long a server may be silent, milliseconds. */
const SILENCE_MS = 10_000;

/** All exports that a server lists, and what it tells of each. Throws BlockError. */
export async function inquireExports({ address, startTls }: InquiryOptions): Promise<InquiredExport[]> {
  const socket = await connected(address);
  socket.setTimeout(SILENCE_MS, () => socket.destroy(new BlockError('ETIMEDOUT', errorText('ETIMEDOUT'))));
  const talk = new Conversation(socketStream(socket, addressText(address)), startTls);
  try {
    const found: InquiredExport[] = [];
    for (const { name, description } of await talk.run(listExports(startTls !== undefined))) {
      const told = await talk.run(describeExport(name));
      if (told === undefined) continue;
      found.push({ ...told, name, description: told.description ?? (description === '' ? undefined : description) });
    }
    await talk.run(abort());
    return found;
  } finally {
    talk.end();
  }
}

function connected(address: ServerAddress): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const options = address.type === 'unix' ? { path: address.path } : { host: address.host, port: address.port };
    const socket = connect({ ...options, noDelay: true });
    socket.once('connect', () => resolve(socket));
    socket.once('error', (cause) => {
      // Of several addresses that were tried, the first one's reason.
      const [first = cause] = cause instanceof AggregateError ? cause.errors : [];
      const code = codeOf(first);
      const known = (first as NodeJS.ErrnoException).code === 'ECONNREFUSED' ? 'Connection refused' : errorText(code);
      reject(new BlockError(code, `Failed to connect to '${addressText(address)}': ${known}`, { cause }));
    });
  });
}

class Conversation {
  #stream: ByteStream;
  readonly #startTls: InquiryOptions['startTls'];
  readonly #input = new ByteQueue();
  #ended: Error | undefined;
  #wake: () => void = () => {};

  constructor(stream: ByteStream, startTls: InquiryOptions['startTls']) {
    this.#stream = stream;
    this.#startTls = startTls;
    this.#listen();
  }

  end(): void {
    this.#stream.end();
    this.#stream.destroy();
  }

  async run<T>(steps: Generator<HandshakeDemand, T, Uint8Array>): Promise<T> {
    let step = steps.next(new Uint8Array(0));
    while (!step.done) step = steps.next(await this.#serve(step.value));
    return step.value;
  }

  async #serve(demand: HandshakeDemand): Promise<Uint8Array> {
    if (demand.kind === 'need') return this.#take(demand.bytes);
    if (demand.kind === 'send') this.#stream.write([demand.bytes], () => {});
    else if (this.#startTls !== undefined) {
      if (this.#input.length > 0) throw new BlockError('EINVAL', 'The server sent plain text after starttls');
      this.#stream = await this.#startTls(this.#stream);
      this.#listen();
    }
    return new Uint8Array(0);
  }

  async #take(bytes: number): Promise<Uint8Array> {
    for (;;) {
      const taken = this.#input.take(bytes);
      if (taken !== undefined) return taken;
      if (this.#ended !== undefined) throw this.#ended;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #listen(): void {
    const over = (error?: Error) => {
      this.#ended ??= error ?? new BlockError('EINVAL', 'The server ended the connection during the handshake');
      this.#wake();
    };
    this.#stream.listen({
      data: (bytes) => {
        this.#input.push(bytes);
        this.#wake();
      },
      end: () => over(),
      close: over,
    });
  }
}
