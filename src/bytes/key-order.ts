/** The order in which keys of JSON results and of `json:` names appear (T-FMT-4): that of a hash table. */

const BUCKETS = 512;

/** The bucket a key falls into: ascending buckets give the order. */
export function keyBucket(key: string): number {
  const bytes = new TextEncoder().encode(key);
  let hash = Math.imul(0x238f13af, bytes.length);
  for (const [index, byte] of bytes.entries()) hash = (hash + (byte << ((5 * index) % 24))) | 0;
  return ((Math.imul(1103515243, hash) + 12345) >>> 0) % BUCKETS;
}

/** Entries in the order that results show them; of two in one bucket the one added last comes first. */
export function inKeyOrder<T>(entries: readonly (readonly [string, T])[]): (readonly [string, T])[] {
  return entries
    .map((entry, index) => ({ entry, index, bucket: keyBucket(entry[0]) }))
    .sort((a, b) => a.bucket - b.bucket || b.index - a.index)
    .map(({ entry }) => entry);
}
