/** What a piece of work allocates in buffers: the largest, and all of them. */

const CONSTRUCTORS = [
  'ArrayBuffer',
  'SharedArrayBuffer',
  'Uint8Array',
  'Uint16Array',
  'Uint32Array',
  'Int32Array',
  'Float64Array',
  'BigUint64Array',
] as const;

export interface Allocations {
  /** Bytes. */
  largest: number;
  total: number;
}

/** Bytes that `new constructor(...args)` allocates; views of buffers allocate none. */
function allocatedBy(made: { readonly byteLength: number }, args: readonly unknown[]): number {
  return args[0] instanceof ArrayBuffer || args[0] instanceof SharedArrayBuffer ? 0 : made.byteLength;
}

/** Runs `work` while counting what it allocates. Not for use side by side. */
export async function countAllocations(work: () => Promise<void>): Promise<Allocations> {
  const counted: Allocations = { largest: 0, total: 0 };
  const scope = globalThis as unknown as Record<string, unknown>;
  const originals = CONSTRUCTORS.map((name) => [name, scope[name]] as const);
  for (const [name, original] of originals) {
    scope[name] = new Proxy(original as new (...args: unknown[]) => { byteLength: number }, {
      construct(target, args, newTarget) {
        const made = Reflect.construct(target, args, newTarget === scope[name] ? target : newTarget);
        const bytes = allocatedBy(made, args);
        counted.largest = Math.max(counted.largest, bytes);
        counted.total += bytes;
        return made;
      },
    });
  }
  try {
    await work();
  } finally {
    for (const [name, original] of originals) scope[name] = original;
  }
  return counted;
}
