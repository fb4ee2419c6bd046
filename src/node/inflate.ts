/** Decoders of compressed data: raw deflate by the system's zlib, in the thread pool, and the codec for zstd. */

import { createRequire } from 'node:module';
import { inflateRaw as inflateSlowly } from '../bytes/inflate.ts';
import type { ZstdModule } from '../core/host.ts';

/** Loaded when first used: most programs never do. Not by `import`, which bundles that V8 has compiled do not have. */
const load = createRequire(import.meta.url);

/** As `Host.inflateRaw`. */
export async function inflateRaw(source: Uint8Array, target: Uint8Array): Promise<boolean> {
  const { inflateRaw: inflate, constants } = load('node:zlib') as typeof import('node:zlib');
  // A stream without an end mark is no error; one that holds more than asked for is, here.
  const options = { finishFlush: constants.Z_SYNC_FLUSH, maxOutputLength: target.length };
  const result = await new Promise<Uint8Array | undefined>((resolve) => {
    inflate(source, options, (error, bytes) => resolve(error === null ? bytes : undefined));
  });
  if (result === undefined) return inflateSlowly(source, target);
  if (result.length < target.length) return false;
  target.set(result);
  return true;
}

/** As `Host.loadZstd`. */
export function loadZstd(): ZstdModule {
  return load('@hpcc-js/wasm-zstd') as ZstdModule;
}
