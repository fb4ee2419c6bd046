/** Tells equal images from different ones; not for secrets. */
import type { SimImage } from './sim-image.ts';
import type { SparseBytes } from './sparse-bytes.ts';

/** Pages that images share are summed up once. */
const pageHashes = new WeakMap<Uint8Array, number>();

/** 52 bits in a number. */
function hashPage(page: Uint8Array): number {
  const known = pageHashes.get(page);
  if (known !== undefined) return known;
  const words = new Uint32Array(page.buffer, page.byteOffset, page.length / 4);
  let a = 0x811c9dc5;
  let b = 0x9e3779b9;
  for (const word of words) {
    a = Math.imul(a ^ word, 0x01000193);
    b = Math.imul((b << 13) | (b >>> 19), 0x85ebca6b) ^ word;
  }
  a ^= a >>> 15;
  const hash = (a >>> 0) * 2 ** 20 + ((b ^ (b >>> 16)) & 0xfffff);
  pageHashes.set(page, hash);
  return hash;
}

function hashContent(content: SparseBytes): string {
  const pages = [...content.pages].sort(([a], [b]) => a - b);
  // A page of zeroes reads like a hole, but takes space: the two stay different.
  return `${content.length}:${pages.map(([index, page]) => `${index}.${hashPage(page).toString(36)}`).join()}`;
}

/** Equal for images with the same names and contents; different for others, with overwhelming likelihood. */
export function imageKey(image: SimImage): string {
  const names = [...image.names].sort(([a], [b]) => (a < b ? -1 : 1));
  return names
    .map(([path, file]) => {
      const content = image.files.get(file)?.content;
      return `${path}=${content === undefined ? '' : hashContent(content)}`;
    })
    .join('|');
}
