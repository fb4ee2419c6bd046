/** Raw deflate by the system's zlib, in the thread pool. */
import { inflateRaw as inflateSlowly } from '../bytes/inflate.ts';

/** Loaded when first used: most programs never do. */
let zlib: Promise<typeof import('node:zlib')> | undefined;

/** As `Host.inflateRaw`. */
export async function inflateRaw(source: Uint8Array, target: Uint8Array): Promise<boolean> {
  zlib ??= import('node:zlib');
  const { inflateRaw: inflate, constants } = await zlib;
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
