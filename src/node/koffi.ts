/** The foreign-function library, reduced to what is used of it, so that tests can put another in its place. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

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

let loaded: Koffi | undefined;

/** Loading takes milliseconds, so it waits for the first system call. Throws when there is no build for this machine. */
export function loadKoffi(): Koffi {
  loaded ??= nearbyKoffi() ?? searchedKoffi();
  return loaded;
}

/** Undefined where nothing has needed it yet. */
export function loadedKoffi(): Koffi | undefined {
  return loaded;
}

/** From where npm puts packages. Node's own search takes as long as the loading. */
function nearbyKoffi(): Koffi | undefined {
  // Bundles that others make may not know.
  let folder: string | undefined = import.meta.dirname;
  if (folder === undefined) return undefined;
  let file = join(folder, 'node_modules', BINARY);
  while (!existsSync(file)) {
    if (folder === dirname(folder)) return undefined;
    folder = dirname(folder);
    file = join(folder, 'node_modules', BINARY);
  }
  const module: { exports: unknown } = { exports: {} };
  try {
    process.dlopen(module, file);
  } catch {
    return undefined;
  }
  return module.exports as Koffi;
}

function searchedKoffi(): Koffi {
  const require = createRequire(import.meta.url);
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
