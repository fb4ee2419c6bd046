/** zstd in WebAssembly in threads of its own, for machines without another. */
import { createRequire } from 'node:module';
import type { Worker } from 'node:worker_threads';
import type { ZstdCodecs } from '../core/host.ts';

/** What a thread runs; as text, for the reason that context-thread.ts gives. */
const PROGRAM = `
const { parentPort, workerData } = require('node:worker_threads');
const loading = require(workerData).Zstd.load();
parentPort.on('message', async ({ id, source, length }) => {
  let bytes;
  try {
    const zstd = await loading;
    if (length < 0) bytes = zstd.compress(source);
    else {
      zstd.reset();
      bytes = zstd.decompressChunk(source, length);
    }
  } catch {}
  parentPort.postMessage({ id, bytes });
});
`;

interface Reply {
  readonly id: number;
  readonly bytes: Uint8Array | undefined;
}

/** Starts a thread when it is first needed. Undefined: the package with the codec is missing. */
export function threadedZstd(threads: number): ZstdCodecs | undefined {
  let file: string;
  try {
    file = createRequire(import.meta.url).resolve('@hpcc-js/wasm-zstd');
  } catch {
    return undefined;
  }
  const all = Array.from({ length: threads }, () => new ZstdThread(file));
  const run = async (source: Uint8Array, length: number, target: Uint8Array) => {
    const [first, ...others] = all;
    const idlest = others.reduce((best, each) => (best && each.load >= best.load ? best : each), first);
    const bytes = await idlest?.code(source, length);
    if (bytes === undefined || bytes.length > target.length) return -1;
    target.set(bytes);
    return bytes.length;
  };
  // One byte more would show a frame that holds more than fits.
  const decode = (frame: Uint8Array, target: Uint8Array) => run(frame, target.length + 1, target);
  return {
    compress: (source, target) => run(source, -1, target),
    decompress: (frames, targets) =>
      Promise.all(frames.map((frame, index) => decode(frame, targets[index] ?? new Uint8Array(0)))),
  };
}

class ZstdThread {
  readonly #file: string;
  #worker: Worker | undefined;
  #next = 0;
  readonly #waiting = new Map<number, (bytes: Uint8Array | undefined) => void>();

  constructor(file: string) {
    this.#file = file;
  }

  get load(): number {
    return this.#waiting.size;
  }

  /** Decodes at most `length` bytes, or encodes where that is below 0. Undefined: it cannot be done. */
  code(source: Uint8Array, length: number): Promise<Uint8Array | undefined> {
    this.#worker ??= this.#start();
    this.#worker.ref();
    const id = this.#next++;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      // A copy of these bytes alone, not of all the memory that they are a part of.
      this.#worker?.postMessage({ id, source: source.slice(), length });
    });
  }

  #start(): Worker {
    const { Worker } = process.getBuiltinModule('node:worker_threads');
    const worker = new Worker(PROGRAM, { eval: true, workerData: this.#file, stdin: false });
    worker.unref();
    worker.on('message', ({ id, bytes }: Reply) => this.#answer(id, bytes));
    const lose = () => {
      if (this.#worker === worker) this.#worker = undefined;
      for (const id of this.#waiting.keys()) this.#answer(id, undefined);
    };
    worker.on('error', lose);
    worker.on('exit', lose);
    return worker;
  }

  #answer(id: number, bytes: Uint8Array | undefined): void {
    const resolve = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (this.#waiting.size === 0) this.#worker?.unref();
    resolve?.(bytes);
  }
}
