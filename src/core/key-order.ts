/**
 * The order of keys in JSON that QEMU's programs print, which scripts compare as text (T-FMT-4): that of a hash table
 * of 512 buckets; in one bucket the last added comes first.
 */
function bucket(key: string): number {
  const bytes = new TextEncoder().encode(key);
  let hash = Math.imul(0x238f13af, bytes.length);
  for (const [index, byte] of bytes.entries()) hash = (hash + (byte << ((index * 5) % 24))) | 0;
  return (Math.imul(1103515243, hash) + 12345) & 511;
}

/** `keys`, given in the order they were added, in printing order. */
export function hashOrder(keys: readonly string[]): string[] {
  return keys
    .map((key, index) => ({ key, index, bucket: bucket(key) }))
    .sort((a, b) => a.bucket - b.bucket || b.index - a.index)
    .map(({ key }) => key);
}
