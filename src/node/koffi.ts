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

/** What loading it needs besides. */
interface KoffiPackage extends Koffi {
  config(settings: { readonly resident_async_pools: number }): void;
}

/** Calls in the thread pool at a time that have memory ready for them: making it takes longer than a short call. */
const READY_CALLS = 4;

let loaded: KoffiPackage | undefined;

/** Loading takes milliseconds, so it waits for the first system call. Throws when there is no build for this machine. */
export function loadKoffi(): Koffi {
  if (loaded === undefined) {
    loaded = requireKoffi();
    // Only before it is used.
    loaded.config({ resident_async_pools: READY_CALLS });
  }
  return loaded;
}

function requireKoffi(): KoffiPackage {
  const require = createRequire(import.meta.url);
  const [direct, ...others] = koffiFiles();
  try {
    return require(direct ?? 'koffi') as KoffiPackage;
  } catch (error) {
    if (others[0] === undefined) throw error;
    return require(others[0]) as KoffiPackage;
  }
}

/**
 * Files that the library is in; the first that loads will do. It is the package with the machine's binary, as koffi would
 * find it after a search that takes longer, then koffi itself.
 */
export function koffiFiles(): string[] {
  const require = createRequire(import.meta.url);
  const koffi = require.resolve('koffi');
  try {
    return [createRequire(koffi).resolve(`@koromix/koffi-${process.platform}-${process.arch}`), koffi];
  } catch {
    return [koffi];
  }
}
