/** Reading compressed clusters, whole, with the last few kept (Q-MAP-5, Q-MAP-6, Q-READ-3). */
import { inflateRaw } from '../../bytes/inflate.ts';
import { withErrno } from '../../core/errors.ts';
import { CompressionType } from './header.ts';
import type { Qcow2Image } from './image.ts';
import type { CompressedPlace } from './tables.ts';
import { decodeZstd } from './zstd.ts';

/** Bytes of decompressed clusters that are kept; one is kept at least. */
const KEPT_BYTES = 4 << 20;

/** Decompressed clusters by where they are stored, least recently used first. */
export class DecompressedClusters {
  readonly #image: Qcow2Image;
  readonly #ready = new Map<number, Uint8Array>();
  readonly #underway = new Map<number, Promise<Uint8Array>>();
  readonly #max: number;
  /** Counts up when what is stored may have changed. */
  #era = 0;

  constructor(image: Qcow2Image) {
    this.#image = image;
    this.#max = Math.max(1, Math.floor(KEPT_BYTES / image.layout.clusterSize));
  }

  /** What is kept, at once. Not to be changed. */
  peek({ offset }: CompressedPlace): Uint8Array | undefined {
    const found = this.#ready.get(offset);
    if (found === undefined) return undefined;
    this.#ready.delete(offset);
    this.#ready.set(offset, found);
    return found;
  }

  /** The cluster's bytes, not to be changed. Throws BlockError EIO for a bad stream. */
  get(place: CompressedPlace): Promise<Uint8Array> {
    const ready = this.peek(place);
    if (ready !== undefined) return Promise.resolve(ready);
    let underway = this.#underway.get(place.offset);
    if (underway === undefined) {
      const era = this.#era;
      underway = this.#load(place).then((bytes) => {
        if (era === this.#era) this.#keep(place.offset, bytes);
        return bytes;
      });
      this.#underway.set(place.offset, underway);
      const forget = () => {
        if (this.#underway.get(place.offset) === underway) this.#underway.delete(place.offset);
      };
      underway.then(forget, forget);
    }
    return underway;
  }

  /** Storage is given up or used again: what was there is not what is. */
  forget(): void {
    this.#era++;
    this.#ready.clear();
    this.#underway.clear();
  }

  #keep(offset: number, bytes: Uint8Array): void {
    this.#ready.set(offset, bytes);
    for (const oldest of this.#ready.keys()) {
      if (this.#ready.size <= this.#max) break;
      this.#ready.delete(oldest);
    }
  }

  async #load({ offset, length }: CompressedPlace): Promise<Uint8Array> {
    const image = this.#image;
    const { file, layout, header, host } = image;
    // The length is an upper bound, and the file may end before it.
    const stored = new Uint8Array(Math.max(0, Math.min(length, file.length() - offset)));
    await image.raise('read_compressed');
    if (stored.length > 0) await file.read(offset, stored);
    const bytes = new Uint8Array(layout.clusterSize);
    let good: boolean;
    if (header.compressionType === CompressionType.zstd) good = await decodeZstd(host, stored, bytes);
    else good = host.inflateRaw === undefined ? inflateRaw(stored, bytes) : await host.inflateRaw(stored, bytes);
    if (good) return bytes;
    throw withErrno('EIO', `The compressed cluster at host offset ${offset} cannot be decompressed`, {
      node: image.node,
    });
  }
}
