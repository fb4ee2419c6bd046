/** Reading compressed clusters, whole, with the last few kept (Q-MAP-5, Q-MAP-6, Q-READ-3). */
import { inflateRaw } from '../../bytes/inflate.ts';
import { BlockError, withErrno } from '../../core/errors.ts';
import { CompressionType } from './header.ts';
import type { Qcow2Image } from './image.ts';
import type { CompressedPlace } from './tables.ts';
import { decodeZstd } from './zstd.ts';

/** Bytes of decompressed clusters that are kept; one is kept at least. */
const KEPT_BYTES = 4 << 20;
/** Most bytes of one read, and of what lies between those that are wanted. */
const FETCH_MAX = 2 << 20;
const GAP_MAX = 4096;
/** Longer reads go into buffers that are used again, of which so many are kept. */
const POOLED_MIN = 128 << 10;
const KEPT_BUFFERS = 4;

/** Decompressed clusters by where they are stored, least recently used first. */
export class DecompressedClusters {
  readonly #image: Qcow2Image;
  readonly #ready = new Map<number, Uint8Array>();
  readonly #underway = new Map<number, Promise<Uint8Array>>();
  readonly #buffers: Uint8Array[] = [];
  readonly #max: number;
  /** Guest offset behind the clusters that were read last. */
  nextGuest = -1;
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

  /** One cluster's bytes, as of {@link getAll}. */
  get(place: CompressedPlace): Promise<Uint8Array> {
    const [bytes = this.#load(place)] = this.getAll([place]);
    return bytes;
  }

  /** Each cluster's bytes, not to be changed. Rejects with BlockError EIO for a bad stream. */
  getAll(places: readonly CompressedPlace[]): Promise<Uint8Array>[] {
    const missing = places.filter(({ offset }) => !this.#ready.has(offset) && !this.#underway.has(offset));
    for (const group of neighbours(missing)) this.#begin(group);
    return places.map((place) => {
      const ready = this.peek(place);
      return ready === undefined ? (this.#underway.get(place.offset) ?? this.#load(place)) : Promise.resolve(ready);
    });
  }

  #begin(group: readonly CompressedPlace[]): void {
    const era = this.#era;
    const fetching = this.#fetch(group);
    const loads = group.map((place) => this.#load(place, fetching));
    Promise.allSettled([fetching, ...loads]).then(([fetched]) => {
      if (fetched.status === 'fulfilled' && fetched.value !== undefined) this.#giveBack(fetched.value.buffer);
    });
    for (const [index, place] of group.entries()) {
      const underway = (loads[index] ?? this.#load(place)).then((bytes) => {
        if (era === this.#era) this.#keep(place.offset, bytes);
        return bytes;
      });
      this.#underway.set(place.offset, underway);
      const forget = () => {
        if (this.#underway.get(place.offset) === underway) this.#underway.delete(place.offset);
      };
      underway.then(forget, forget);
    }
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

  /** What is stored at neighbouring places, in one read; undefined: it is not to be had so. */
  async #fetch(group: readonly CompressedPlace[]): Promise<Fetched | undefined> {
    const [first, last] = [group[0], group.at(-1)];
    if (first === undefined || last === undefined || first === last) return undefined;
    try {
      for (const _place of group) await this.#image.raise('read_compressed');
      const { offset } = first;
      const length = Math.max(...group.map((place) => place.offset + place.length)) - offset;
      const buffer = length < POOLED_MIN ? new Uint8Array(length) : (this.#buffers.pop() ?? new Uint8Array(FETCH_MAX));
      return { offset, buffer, bytes: await this.#read({ offset, length }, buffer) };
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      // Read one by one, they show which of them is damaged.
      return undefined;
    }
  }

  /** Memory that nothing reads any more. */
  #giveBack(buffer: Uint8Array): void {
    if (buffer.length === FETCH_MAX && this.#buffers.length < KEPT_BUFFERS) this.#buffers.push(buffer);
  }

  async #read({ offset, length }: CompressedPlace, buffer: Uint8Array = new Uint8Array(length)): Promise<Uint8Array> {
    const { file } = this.#image;
    // The length is an upper bound, and the file may end before it.
    const stored = buffer.subarray(0, Math.max(0, Math.min(length, file.length() - offset)));
    if (stored.length > 0 && !file.tryReadNow(offset, stored)) await file.read(offset, stored);
    return stored;
  }

  /** `fetching`: bytes from the first of its neighbours on, if they are read together. */
  async #load(place: CompressedPlace, fetching?: Promise<Fetched | undefined>): Promise<Uint8Array> {
    const image = this.#image;
    const { layout, header, host } = image;
    const fetched = await fetching;
    let stored = fetched?.bytes.subarray(place.offset - fetched.offset, place.offset - fetched.offset + place.length);
    if (stored === undefined) {
      await image.raise('read_compressed');
      stored = await this.#read(place);
    }
    const bytes = new Uint8Array(layout.clusterSize);
    let good: boolean;
    if (header.compressionType === CompressionType.zstd) good = await decodeZstd(host, stored, bytes);
    else good = host.inflateRaw === undefined ? inflateRaw(stored, bytes) : await host.inflateRaw(stored, bytes);
    if (good) return bytes;
    throw withErrno('EIO', `The compressed cluster at host offset ${place.offset} cannot be decompressed`, {
      node: image.node,
    });
  }
}

interface Fetched {
  readonly offset: number;
  readonly buffer: Uint8Array;
  readonly bytes: Uint8Array;
}

/** Places in groups, each of which is read at once: they ascend, with little between them. */
function neighbours(places: readonly CompressedPlace[]): CompressedPlace[][] {
  const groups: CompressedPlace[][] = [];
  let group: CompressedPlace[] = [];
  for (const place of places) {
    const [first, last] = [group[0], group.at(-1)];
    const joins =
      first !== undefined &&
      last !== undefined &&
      // In the same sector, maybe.
      place.offset >= last.offset &&
      place.offset <= last.offset + last.length + GAP_MAX &&
      place.offset + place.length <= first.offset + FETCH_MAX;
    if (joins) group.push(place);
    else {
      group = [place];
      groups.push(group);
    }
  }
  return groups;
}
