/** The foreign-function library, reduced to what is used of it, so that tests can put another in its place. */
import { createRequire } from 'node:module';

/** A C function. Called plainly it blocks; `async` runs it in the thread pool. */
export interface NativeFunction {
  (...parameters: unknown[]): number | bigint;
  async(...parametersAndCallback: unknown[]): void;
}

export interface Koffi {
  /** null: what the program itself is linked with. `deep`: the library's own symbols go before the program's. */
  load(library: string | null, options?: { readonly deep?: boolean }): { func(prototype: string): NativeFunction };
  /** Where a buffer's memory begins. */
  address(buffer: NodeJS.ArrayBufferView): bigint;
  /** `errno` of the last call; in an `async` callback that of its call. */
  errno(): number;
}

/** Packages have one folder for each C library; where it is not this one the binary does not load. */
const BINARY = `@koromix/koffi-${process.platform}-${process.arch}/${process.platform}_${process.arch}/koffi.node`;

/** Loading takes milliseconds, so it waits for the first system call. Throws when there is no build for this machine. */
export function loadKoffi(): Koffi {
  const require = createRequire(import.meta.url);
  try {
    return require(BINARY) as Koffi;
  } catch {
    // Kept elsewhere, or of another C library: found by a search that takes longer.
  }
  const [direct, ...others] = koffiFiles();
  try {
    return require(direct ?? 'koffi') as Koffi;
  } catch (error) {
    if (others[0] === undefined) throw error;
    return require(others[0]) as Koffi;
  }
}

/** Files that the library is in; the first that loads will do: the package with the machine's binary, and koffi itself. */
export function koffiFiles(): string[] {
  const require = createRequire(import.meta.url);
  const koffi = require.resolve('koffi');
  try {
    return [createRequire(koffi).resolve(`@koromix/koffi-${process.platform}-${process.arch}`), koffi];
  } catch {
    return [koffi];
  }
}
