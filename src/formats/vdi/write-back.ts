/**
 * Writing the map and the header back, in an order that a power cut at any point leaves at worst leaked blocks (V-24):
 * data and a raised count first, durable; then the map, durable; a lowered count last.
 */
import { headerEnd, patchHeader } from './header.ts';
import type { VdiImage } from './image.ts';
import { mapBytes, PAGE_ENTRIES } from './map.ts';

export class WriteBack {
  readonly #image: VdiImage;
  #last: Promise<void> = Promise.resolve();
  #queued: Promise<void> | undefined;

  constructor(image: VdiImage) {
    this.#image = image;
  }

  /** Makes everything completed before the call durable. One runs at a time; those that wait share the next. */
  flush(): Promise<void> {
    if (this.#queued === undefined) {
      const run = this.#last.then(() => {
        this.#queued = undefined;
        return this.#flush();
      });
      this.#queued = run;
      this.#last = run.catch(() => {});
    }
    return this.#queued;
  }

  async #flush(): Promise<void> {
    const image = this.#image;
    const { file, slots } = image;
    if (!image.dirtyPages.any && !image.headerDirty && !slots.hasPending) return file.flush();
    const mark = slots.mark();
    const pages = image.dirtyPages.take();
    // Copied now: what is allocated while this runs may have no durable data yet.
    const runs = pageRuns(image, pages);
    try {
      await this.#extendFile();
      if (image.headerDirty || slots.next > image.countOnDisk) await this.#writeHeader(slots.next);
      await file.flush();
      for (const { first, bytes } of runs) await file.write(image.header.mapOffset + first * 4, bytes);
      if (runs.length > 0) await file.flush();
    } catch (error) {
      image.dirtyPages.putBack(pages);
      image.headerDirty = true;
      throw error;
    }
    slots.release(mark);
    await this.#shrinkFile();
  }

  /** A block is always whole in the file, also where only its beginning was written (V-3). */
  async #extendFile(): Promise<void> {
    const { file, slots } = this.#image;
    if (slots.next === 0) return;
    const end = this.#image.endOf(slots.next - 1);
    if (file.length() < end) await file.truncate(end);
  }

  async #writeHeader(count: number): Promise<void> {
    const image = this.#image;
    image.headerDirty = false;
    image.header.allocated = Math.max(count, image.countOnDisk);
    await writeHeader(image);
    image.countOnDisk = image.header.allocated;
  }

  /** Free slots at the end are given back to the host (V-65). The count goes down only after the map. */
  async #shrinkFile(): Promise<void> {
    const image = this.#image;
    if (!image.slots.trimEnd() && image.slots.next >= image.countOnDisk) return;
    const count = image.slots.next;
    image.header.allocated = count;
    await writeHeader(image);
    image.countOnDisk = count;
    if (image.slots.next === count && image.allocating.size === 0) {
      await image.file.truncate(image.dataOffset + count * image.stride, { shrink: true });
    }
  }
}

/** Writes the header as it is in memory: inside one sector, so it is there whole or not at all. The map may follow at once. */
export async function writeHeader(image: VdiImage): Promise<void> {
  patchHeader(image.headerBytes, image.header);
  await image.file.write(0, image.headerBytes.slice(0, headerEnd(image.header)));
}

/** The entries of dirty pages, neighbours together. */
function pageRuns(image: VdiImage, pages: readonly number[]): { first: number; bytes: Uint8Array }[] {
  const runs: { first: number; end: number }[] = [];
  for (const first of pages) {
    const end = Math.min(first + PAGE_ENTRIES, image.map.length);
    const last = runs.at(-1);
    if (last?.end === first) last.end = end;
    else if (end > first) runs.push({ first, end });
  }
  return runs.map(({ first, end }) => ({ first, bytes: mapBytes(image.map, first, end) }));
}
