/** Thrown for mistakes of our own; never for bytes that came from a disk or a wire. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError';
}

/** Checks something that only a programming mistake can make false. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}
