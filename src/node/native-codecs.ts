/**
 * The system's libz and libzstd, in Node's thread pool: the very encoders that QEMU's programs use, so that images become as
 * small. Node's own zlib compresses to some percent more, and before 22.15 Node has no zstd.
 */
import type { ZstdCodecs } from '../core/host.ts';
import type { Koffi, NativeFunction } from './koffi.ts';

/** Machines whose pointers and `unsigned long` have 64 bits, lowest byte first: the layout of z_stream below. */
const MACHINES = ['x64', 'arm64', 'riscv64', 'loong64'];
const STREAM_BYTES = 112;
/** Bytes of z_stream. */
const Field = { nextIn: 0, availableIn: 8, nextOut: 24, availableOut: 32, totalOut: 40 } as const;
const Z_FINISH = 4;
const Z_STREAM_END = 1;
const DEFAULT_LEVEL = -1;
const DEFLATED = 8;
/** Windows of 2^12 bytes, and of all that deflate has (Q-MAP-6); below zero where they are told: without a header. */
const WRITTEN_WINDOW_BITS = 12;
const READ_WINDOW_BITS = 15;
const MEMORY_LEVEL = 9;
const ZSTD_LEVEL = 3;

/** Resolves with the bytes of `target` that it fills, or -1: they are too few. */
export type Encoder = (source: Uint8Array, target: Uint8Array) => Promise<number>;

function library(koffi: Koffi, name: string): ReturnType<Koffi['load']> | undefined {
  if (process.platform !== 'linux' || !MACHINES.includes(process.arch)) return undefined;
  try {
    // Node has another zlib in it, whose functions a library would call for its own, unless glibc binds them deeply.
    koffi.load(null).func('const char *gnu_get_libc_version()');
    return koffi.load(name, { deep: true });
  } catch {
    return undefined;
  }
}

/** Runs a call in the thread pool; `memory`, whose places are among the parameters, is not freed before it returns. */
function inPool(call: NativeFunction, memory: Uint8Array[], ...parameters: unknown[]): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...parameters, (error: Error | null, value: number | bigint) => {
      memory.length = 0;
      if (error) reject(error);
      else resolve(Number(value));
    });
  });
}

/** What one call at a time works with: the library's own, and memory for what it reads. */
interface Context<H> {
  readonly handle: H;
  input: Uint8Array;
}

class Contexts<H> {
  readonly #make: () => H;
  readonly #idle: Context<H>[] = [];

  constructor(make: () => H) {
    this.#make = make;
  }

  /** `source` is copied: its owner may give it away meanwhile. */
  async use<T>(source: Uint8Array, work: (handle: H, input: Uint8Array) => Promise<T>): Promise<T> {
    const context = this.#idle.pop() ?? { handle: this.#make(), input: new Uint8Array(0) };
    if (context.input.length < source.length) context.input = new Uint8Array(source.length);
    context.input.set(source);
    const result = await work(context.handle, context.input.subarray(0, source.length));
    this.#idle.push(context);
    return result;
  }
}

/** Raw deflate as qcow2 has it. Undefined: there is no libz that can be used. */
export function nativeDeflate(koffi: Koffi): Encoder | undefined {
  const init =
    'int deflateInit2_(void *stream, int level, int method, int bits, int memory, int strategy, const char *version, int size)';
  const settings = [DEFAULT_LEVEL, DEFLATED, -WRITTEN_WINDOW_BITS, MEMORY_LEVEL, 0];
  const run = streamCoder(koffi, { init, settings, reset: 'deflateReset', code: 'deflate' });
  return (
    run &&
    (async (source, target) => {
      const { result, filled } = await run(source, target);
      return result === Z_STREAM_END ? filled : -1;
    })
  );
}

/** As `Host.inflateRaw`. Undefined: there is no libz that can be used. */
export function nativeInflate(
  koffi: Koffi,
): ((source: Uint8Array, target: Uint8Array) => Promise<boolean>) | undefined {
  const init = 'int inflateInit2_(void *stream, int bits, const char *version, int size)';
  const settings = [-READ_WINDOW_BITS];
  const run = streamCoder(koffi, { init, settings, reset: 'inflateReset', code: 'inflate' });
  // Whatever comes after the bytes that are wanted, an error too, does not matter.
  return run && (async (source, target) => (await run(source, target)).filled === target.length);
}

interface StreamFunctions {
  readonly init: string;
  readonly settings: readonly number[];
  readonly reset: string;
  readonly code: string;
}

/** One half of libz: codes all of a source at once. */
function streamCoder(koffi: Koffi, { init, settings, reset, code }: StreamFunctions) {
  const libz = library(koffi, 'libz.so.1');
  if (libz === undefined) return undefined;
  const initStream = libz.func(init);
  const resetStream = libz.func(`int ${reset}(void *stream)`);
  const codeStream = libz.func(`int ${code}(uintptr_t stream, int flush)`);
  const streams = new Contexts(() => {
    const stream = new Uint8Array(new ArrayBuffer(STREAM_BYTES));
    const result = initStream(stream, ...settings, '1.2.11', STREAM_BYTES);
    if (result !== 0) throw new RangeError(`${init}: ${result}`);
    return stream;
  });
  return (source: Uint8Array, target: Uint8Array) =>
    streams.use(source, async (stream, input) => {
      const view = new DataView(stream.buffer);
      resetStream(stream);
      view.setBigUint64(Field.nextIn, BigInt(koffi.address(input)), true);
      view.setUint32(Field.availableIn, input.length, true);
      view.setBigUint64(Field.nextOut, BigInt(koffi.address(target)), true);
      view.setUint32(Field.availableOut, target.length, true);
      const result = await inPool(codeStream, [stream, input, target], koffi.address(stream), Z_FINISH);
      return { result, filled: Number(view.getBigUint64(Field.totalOut, true)) };
    });
}

/** Undefined: there is no libzstd that can be used. */
export function nativeZstd(koffi: Koffi): ZstdCodecs | undefined {
  const libzstd = library(koffi, 'libzstd.so.1');
  if (libzstd === undefined) return undefined;
  const contexts = (name: string) => {
    const create = libzstd.func(`uintptr_t ${name}()`);
    return new Contexts(() => {
      const context = create();
      if (Number(context) === 0) throw new RangeError(`${name}: no memory`);
      return context;
    });
  };
  const encoders = contexts('ZSTD_createCCtx');
  const decoders = contexts('ZSTD_createDCtx');
  const memory = 'uintptr_t context, uintptr_t target, size_t capacity, uintptr_t source, size_t size';
  const compress = libzstd.func(`size_t ZSTD_compressCCtx(${memory}, int level)`);
  const decompress = libzstd.func(`size_t ZSTD_decompressDCtx(${memory})`);
  const run = async (call: NativeFunction, context: unknown, input: Uint8Array, target: Uint8Array, more: number[]) => {
    const places = [koffi.address(target), target.length, koffi.address(input), input.length];
    const result = await inPool(call, [input, target], context, ...places, ...more);
    // Error numbers are lengths that nothing has.
    return result > target.length ? -1 : result;
  };
  return {
    compress: (source, target) =>
      encoders.use(source, (context, input) => run(compress, context, input, target, [ZSTD_LEVEL])),
    decompress: (frame, target) => decoders.use(frame, (context, input) => run(decompress, context, input, target, [])),
  };
}
