/** The foreign-function library, reduced to what is used of it, so that tests can put another in its place. */
import { createRequire } from 'node:module';

/** A C function. Called plainly it blocks; `async` runs it in the thread pool. */
export interface NativeFunction {
  (...parameters: unknown[]): number | bigint;
  async(...parametersAndCallback: unknown[]): void;
}

export interface Koffi {
  load(library: null): { func(prototype: string): NativeFunction };
  /** Where a buffer's memory begins. */
  address(buffer: NodeJS.ArrayBufferView): bigint;
  /** `errno` of the last call; in an `async` callback that of its call. */
  errno(): number;
}

/**
 * Loading takes milliseconds, so it waits for the first system call, and goes straight to the package that holds the
 * machine's binary, as koffi would after a search that takes longer. Throws when there is no build for this machine.
 */
export function loadKoffi(): Koffi {
  const require = createRequire(import.meta.url);
  try {
    return createRequire(require.resolve('koffi'))(`@koromix/koffi-${process.platform}-${process.arch}`) as Koffi;
  } catch {
    return require('koffi') as Koffi;
  }
}
