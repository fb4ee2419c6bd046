/** What is sent of files past all buffers, and in which order (N-50, N-51, N-74). */
import { describe, expect, test } from 'vitest';
import type { FilePlace } from '../../core/host-bulk.ts';
import { BufferPool, type FileRange, Output, type Sink } from './output.ts';

const KIB = 1024;
const FILE = Uint8Array.from({ length: 1 << 20 }, (_, index) => index % 251);
const place = (offset: number) => ({ file: {}, offset }) as FilePlace;

/** A system that takes so many bytes of a file by each call, and what it got, by who brought it. */
class FakeSink implements Sink {
  readonly got: (readonly [string, number])[] = [];
  readonly #pieces: Uint8Array[] = [];
  takes = Number.POSITIVE_INFINITY;
  sends = true;
  destroyed = false;
  /** Ends of writes that the system has not taken. */
  readonly waiting: (() => void)[] = [];

  get bytes(): Uint8Array {
    return Uint8Array.from(Buffer.concat(this.#pieces));
  }

  writeNow(pieces: readonly Uint8Array[]): number {
    return this.#add('now', pieces);
  }

  write(pieces: readonly Uint8Array[], done: () => void): void {
    this.#add('write', pieces);
    this.waiting.push(done);
  }

  sendsFile(): boolean {
    return this.sends;
  }

  sendFileNow({ offset }: FilePlace, length: number): number {
    return this.#add('file', [FILE.subarray(offset, offset + Math.min(length, this.takes))]);
  }

  destroy(): void {
    this.destroyed = true;
  }

  /** Takes what waits, until nothing does. */
  async drain(): Promise<void> {
    for (let turn = 0; turn < 5; turn++) {
      for (const done of this.waiting.splice(0)) done();
      await new Promise(setImmediate);
    }
  }

  #add(how: string, pieces: readonly Uint8Array[]): number {
    let count = 0;
    for (const piece of pieces) {
      this.#pieces.push(piece.slice());
      count += piece.length;
    }
    this.got.push([how, count]);
    return count;
  }
}

function setting() {
  const sink = new FakeSink();
  let drained = 0;
  const output = new Output(sink, new BufferPool(), () => drained++);
  const range = (length: number, changed: Partial<FileRange> = {}): FileRange => ({
    place: place(100),
    length,
    readNow: (skip, target) => {
      target.set(FILE.subarray(100 + skip, 100 + skip + target.length));
      return true;
    },
    read: () => Promise.reject(new TypeError('not asked')),
    ...changed,
  });
  return { sink, output, range, drained: () => drained };
}

const head = (byte: number) => new Uint8Array(28).fill(byte);
const fileBytes = (length: number) => FILE.subarray(100, 100 + length);
const joined = (...pieces: Uint8Array[]) => Uint8Array.from(Buffer.concat(pieces));

describe('bytes of a file', () => {
  test('go out behind what is gathered, without being read', () => {
    const { sink, output, range } = setting();
    output.add(head(1));
    expect(output.sendsFile(place(100), 1000)).toBe(true);
    expect(output.sendFile(range(1000, { readNow: () => expect.unreachable() }))).toBeUndefined();
    output.add(head(2));
    output.flush();
    expect(sink.got).toEqual([
      ['now', 28],
      ['file', 1000],
      ['now', 28],
    ]);
    expect(sink.bytes).toEqual(joined(head(1), fileBytes(1000), head(2)));
    expect(output.waiting).toBe(0);
  });

  test('for which there is no room are copied a piece at a time, and nothing gets between them', async () => {
    const { sink, output, range, drained } = setting();
    const length = 300 * KIB;
    sink.takes = 10 * KIB;
    output.add(head(1));
    const sending = output.sendFile(range(length));
    // Answers to others.
    output.add(head(2));
    output.flush();
    expect(output.sendingFile).toBe(true);
    expect(output.sendsFile(place(0), 1)).toBe(false);
    expect(output.waiting).toBe(290 * KIB + 28);
    await sink.drain();
    await sending;
    await sink.drain();
    expect(sink.got).toEqual([
      ['now', 28],
      ['file', 10 * KIB],
      ['write', 128 * KIB],
      ['file', 10 * KIB],
      ['write', 128 * KIB],
      ['file', 10 * KIB],
      ['write', 14 * KIB],
      ['now', 28],
    ]);
    expect(Buffer.compare(sink.bytes, joined(head(1), fileBytes(length), head(2)))).toBe(0);
    expect([output.waiting, output.sendingFile, drained()]).toEqual([0, false, 1]);
  });

  test('that are no longer in the cache are waited for', async () => {
    const { sink, output, range } = setting();
    sink.takes = 1000;
    const read = async (skip: number, target: Uint8Array) => {
      await new Promise(setImmediate);
      target.set(FILE.subarray(100 + skip, 100 + skip + target.length));
    };
    const sending = output.sendFile(range(3000, { readNow: () => false, read }));
    await sink.drain();
    await sending;
    expect(sink.bytes).toEqual(fileBytes(3000));
    expect(sink.got).toEqual([
      ['file', 1000],
      ['write', 2000],
    ]);
  });

  test('that cannot be read any more end the connection: nothing else may stand in their place', async () => {
    const { sink, output, range } = setting();
    sink.takes = 1000;
    const lost = { readNow: () => false, read: () => Promise.reject(new TypeError('lost')) };
    await output.sendFile(range(3000, lost));
    expect(sink.destroyed).toBe(true);
    expect(output.waiting).toBe(0);
  });

  test('wait for what the system has not taken before', () => {
    const { sink, output } = setting();
    sink.writeNow = () => 0;
    output.add(head(1));
    output.flush();
    expect(output.sendsFile(place(0), 1000)).toBe(false);
  });
});
