/** An image written front to back: header and map come first, and the places of blocks follow from which are stored. */
import type { ImageStream, StreamContext } from '../../core/driver.ts';
import { encodeNewHeader, newHeader, type VdiCreateOptions } from './create.ts';
import { readNamedHeader } from './find-parent.ts';
import { HEADER_BYTES, ImageType } from './header.ts';
import { isStored, mapBytes, UNALLOCATED, ZEROED } from './map.ts';
import { requireUuid } from './rebase.ts';

/** While status is asked: what a block holds. */
const DATA = 1;
const ZERO = 2;
const ABSENT = 4;

/** Entries of the map that are handed over at a time. */
const MAP_PIECE = 1 << 18;
/** The image has no name: a parent's name is seen from the current folder. */
const NAMELESS = '-';

/** Throws BlockError: options that cannot be, a parent that cannot be read. */
export async function stream(context: StreamContext<VdiCreateOptions>): Promise<ImageStream> {
  const { options, size, host } = context;
  const header = newHeader({ ...options, size }, (target) => host.random(target));
  if (options.parent !== undefined) {
    const parent = await readNamedHeader(host, NAMELESS, options.parent);
    requireUuid(parent, header.uuid, options.parent);
    Object.assign(header, { linkUuid: parent.uuid, parentUuid: parent.modificationUuid });
  }
  const { blockSize, blocks, mapOffset, dataOffset } = header;
  const map = await blocksToStore(context, blockSize, blocks, header.type);
  let next = 0;
  for (let block = 0; block < blocks; block++) if (isStored(map[block] ?? UNALLOCATED)) map[block] = next++;
  header.allocated = next;
  return {
    length: dataOffset + next * blockSize,
    *head() {
      yield encodeNewHeader(header);
      yield new Uint8Array(mapOffset - HEADER_BYTES);
      for (let from = 0; from < blocks; from += MAP_PIECE)
        yield mapBytes(map, from, Math.min(blocks, from + MAP_PIECE));
      yield new Uint8Array(dataOffset - mapOffset - blocks * 4);
    },
    *ranges() {
      for (let block = 0; block < blocks; block++) {
        const first = block;
        while (block < blocks && isStored(map[block] ?? UNALLOCATED)) block++;
        if (block > first) yield { offset: first * blockSize, length: (block - first) * blockSize };
      }
    },
  };
}

/** A map with 0 for each block to store. */
async function blocksToStore(
  { extents }: StreamContext<VdiCreateOptions>,
  blockSize: number,
  blocks: number,
  type: number,
): Promise<Uint32Array> {
  const map = new Uint32Array(blocks);
  if (type === ImageType.static) return map;
  const isOver = type === ImageType.differencing;
  for await (const { offset, length, zero, absent } of extents) {
    const what = absent ? ABSENT : zero ? ZERO : DATA;
    const first = Math.floor(offset / blockSize);
    const end = Math.ceil((offset + length) / blockSize);
    if (what === DATA || isOver) for (let i = first; i < end; i++) map[i] = (map[i] ?? 0) | what;
  }
  return map.map((seen) => entryOf(seen, isOver));
}

/** What the parent shows through only in part is stored as a whole. */
function entryOf(seen: number, isOver: boolean): number {
  if ((seen & DATA) !== 0 || seen === (ZERO | ABSENT)) return 0;
  return isOver && seen === ZERO ? ZEROED : UNALLOCATED;
}
