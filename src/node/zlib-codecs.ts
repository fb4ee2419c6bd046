/** Codecs that Node has built in, in its thread pool: raw deflate, and zstd from 22.15 on. */
import { createRequire } from 'node:module';
import { inflateRaw as inflateSlowly } from '../bytes/inflate.ts';
import type { ZstdModule } from '../core/host.ts';

type Zlib = typeof import('node:zlib');
/** Not imported, as it takes milliseconds to load. */
const zlib = (): Zlib => process.getBuiltinModule('node:zlib');

type Coder = (source: Uint8Array, options: object, done: (error: Error | null, bytes: Uint8Array) => void) => void;
/** Newer Nodes have these two. */
type ZstdZlib = Zlib & { readonly zstdCompress?: Coder; readonly zstdDecompress?: Coder };

/** As `Host.inflateRaw`, of one. */
export async function inflateRaw(source: Uint8Array, target: Uint8Array): Promise<boolean> {
  const { inflateRaw: inflate, constants } = zlib();
  // A stream without an end mark is no error; one that holds more than asked for is, here.
  const options = { finishFlush: constants.Z_SYNC_FLUSH, maxOutputLength: target.length, chunkSize: target.length };
  const result = await coded(inflate, source, options);
  if (result === undefined) return inflateSlowly(source, target);
  if (result.length < target.length) return false;
  target.set(result);
  return true;
}

/** Undefined where the coder fails. */
function coded(coder: Coder, source: Uint8Array, options: object): Promise<Uint8Array | undefined> {
  return new Promise((resolve) =>
    coder(source, options, (error, bytes) => resolve(error === null ? bytes : undefined)),
  );
}

/** The bytes of `target` that are filled; -1: they are too few, or there is nothing. */
function put(bytes: Uint8Array | undefined, target: Uint8Array): number {
  if (bytes === undefined || bytes.length > target.length) return -1;
  target.set(bytes);
  return bytes.length;
}

/** As `Host.deflateRaw`. */
export async function deflateRaw(source: Uint8Array, target: Uint8Array): Promise<number> {
  const { deflateRaw: deflate } = zlib();
  return put(await coded(deflate, source, { windowBits: 12, memLevel: 9, chunkSize: source.length + 64 }), target);
}

type OneCoder = (source: Uint8Array, target: Uint8Array) => Promise<number>;

/** As `ZstdCodecs`, of one. Undefined: this Node has none. */
export function builtInZstd(): { readonly compress: OneCoder; readonly decompress: OneCoder } | undefined {
  const { zstdCompress, zstdDecompress } = zlib() as ZstdZlib;
  if (zstdCompress === undefined || zstdDecompress === undefined) return undefined;
  return {
    compress: async (source, target) => put(await coded(zstdCompress, source, {}), target),
    async decompress(frame, target) {
      return put(await coded(zstdDecompress, frame, { maxOutputLength: Math.max(1, target.length) }), target);
    },
  };
}

/** As `Host.loadZstd`. */
export function loadZstd(): ZstdModule {
  // Not by `import`, which bundles that V8 has compiled do not have.
  return createRequire(import.meta.url)('@hpcc-js/wasm-zstd') as ZstdModule;
}
