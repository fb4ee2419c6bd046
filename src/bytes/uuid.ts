/** UUIDs as disk formats of PC software store them: 16 bytes, the first three groups little endian (V-2). */

/** Byte of the stored form for each byte of the text form. The order is its own inverse. */
const ORDER = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/** Sixteen stored bytes as `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, lower case. */
export function formatUuid(stored: Uint8Array): string {
  const hex = ORDER.map((index) => (stored[index] ?? 0).toString(16).padStart(2, '0')).join('');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** The stored bytes of a UUID's text, upper or lower case, with or without braces; undefined if it is none. */
export function parseUuid(text: string): Uint8Array | undefined {
  const match = /^(\{)?([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})(\})?$/i.exec(text);
  if (!match || (match[1] === undefined) !== (match[7] === undefined)) return undefined;
  const hex = match.slice(2, 7).join('');
  return Uint8Array.from(ORDER, (index) => Number.parseInt(hex.slice(index * 2, index * 2 + 2), 16));
}

/** A random UUID (version 4) in stored form, from the given source of random bytes. */
export function randomUuid(random: (target: Uint8Array) => void): Uint8Array {
  const stored = new Uint8Array(16);
  random(stored);
  // The version is the high half of text byte 6, stored at 7; the variant, the top bits of byte 8.
  stored[7] = ((stored[7] ?? 0) & 0x0f) | 0x40;
  stored[8] = ((stored[8] ?? 0) & 0x3f) | 0x80;
  return stored;
}
