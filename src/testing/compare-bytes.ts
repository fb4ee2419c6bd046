/** Where `found` first differs from `expected`, the shorter one's end at the latest; -1: nowhere. */
export function differsAt(found: Uint8Array, expected: Uint8Array): number {
  const common = Math.min(found.length, expected.length);
  for (let i = 0; i < common; i++) if (found[i] !== expected[i]) return i;
  return found.length === expected.length ? -1 : common;
}
