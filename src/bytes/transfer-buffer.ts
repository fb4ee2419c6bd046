/** Memory for large reads and writes. */

const PAGE = 4096;
/** What allocators put before a large block that begins at a page. */
const HEADER = 16;

/**
 * Zeroes, for the kernel to copy to and from: at the beginning of a page. At the 16th byte of one, where large arrays begin
 * by themselves, copying takes up to three times as long. Where the allocator does it in another way, nothing is lost.
 */
export function transferBuffer(length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new ArrayBuffer(length + PAGE), PAGE - HEADER, length);
}
