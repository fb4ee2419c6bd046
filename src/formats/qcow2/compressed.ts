/** Reading compressed clusters, whole, with the last few kept (Q-MAP-5, Q-MAP-6, Q-READ-3). */
import { transferBuffer } from '../../bytes/transfer-buffer.ts';
import { BlockError, withErrno } from '../../core/errors.ts';
import { settled } from '../../core/gate.ts';
import { decompressClusters } from './compress.ts';
import type { Qcow2Image } from './image.ts';
import type { CompressedPlace } from './tables.ts';

/** Bytes of decompressed clusters that are kept; one is kept at least. */
const KEPT_BYTES = 4 << 20;
/** Most bytes of one read, and of what lies between those that are wanted. */
const FETCH_MAX = 2 << 20;
const GAP_MAX = 4096;
/** Longer reads go into buffers that are used again, of which so many are kept. */
const POOLED_MIN = 128 << 10;
const KEPT_BUFFERS = 8;

/** Decompressed clusters by where they are stored, least recently used first. */
export class DecompressedClusters {
  readonly #image: Qcow2Image;
  readonly #ready = new Map<number, Uint8Array>();
  readonly #underway = new Map<number, Promise<Loaded>>();
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

  /** One cluster's bytes, not to be changed. Rejects with BlockError EIO for a bad stream. */
  async get(place: CompressedPlace): Promise<Uint8Array> {
    const [result] = await this.getAll([place]);
    if (result instanceof Uint8Array) return result;
    throw result ?? this.#damaged(place);
  }

  /**
   * Each cluster's bytes, not to be changed, or the BlockError that hinders it: EIO for a bad stream. Those that are not at hand
   * are decoded into `targets`, memory as long as a cluster, where there is one for them, and are not kept then.
   */
  async getAll(
    places: readonly CompressedPlace[],
    targets: readonly (Uint8Array | undefined)[] = [],
  ): Promise<readonly (Loaded | undefined)[]> {
    const results: (Loaded | undefined)[] = [];
    const missing: Wanted[] = [];
    const waits: Promise<unknown>[] = [];
    const put = (index: number, loading: Promise<Loaded>) =>
      loading.then((loaded) => {
        results[index] = loaded;
      });
    for (const [index, place] of places.entries()) {
      results[index] = this.peek(place);
      const underway = this.#underway.get(place.offset);
      if (results[index] !== undefined) continue;
      if (underway !== undefined) waits.push(put(index, underway));
      else missing.push({ place, index, target: targets[index] });
    }
    for (const group of neighbours(missing)) {
      const loading = this.#load(group);
      this.#keepWhenDone(group, loading);
      const all = loading.then((loaded) => {
        for (const [i, { index }] of group.entries()) results[index] = loaded[i];
      });
      waits.push(all);
    }
    // Nothing writes into targets any more.
    await settled(waits);
    return results;
  }

  #keepWhenDone(group: readonly Wanted[], loading: Promise<readonly Loaded[]>): void {
    const era = this.#era;
    for (const [i, { place, target }] of group.entries()) {
      if (target !== undefined) continue;
      const { offset } = place;
      const underway = loading.then((all) => all[i] ?? this.#damaged(place));
      this.#underway.set(offset, underway);
      const end = (loaded?: Loaded) => {
        if (loaded instanceof Uint8Array && era === this.#era) this.#keep(offset, loaded);
        if (this.#underway.get(offset) === underway) this.#underway.delete(offset);
      };
      underway.then(end, () => end());
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
      for (const _place of group) {
        const event = this.#image.raise('read_compressed');
        if (event !== undefined) await event;
      }
      const { offset } = first;
      const length = Math.max(...group.map((place) => place.offset + place.length)) - offset;
      const buffer = length < POOLED_MIN ? new Uint8Array(length) : (this.#buffers.pop() ?? transferBuffer(FETCH_MAX));
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

  /** Clusters of a group, read at once if they can be. */
  async #load(group: readonly Wanted[]): Promise<readonly Loaded[]> {
    const image = this.#image;
    const fetched = await this.#fetch(group.map(({ place }) => place));
    const alone = fetched ? [] : await Promise.all(group.map(({ place }) => this.#readAlone(place)));
    const sources: Uint8Array[] = [];
    const targets: Uint8Array[] = [];
    const results = group.map(({ place: { offset, length }, target }, index): Loaded => {
      const start = offset - (fetched?.offset ?? 0);
      const source = fetched?.bytes.subarray(start, start + length) ?? alone[index] ?? NOTHING;
      if (source instanceof BlockError) return source;
      const bytes = target ?? new Uint8Array(image.layout.clusterSize);
      sources.push(source);
      targets.push(bytes);
      return bytes;
    });
    const good = await decompressClusters(image, sources, targets);
    if (fetched !== undefined) this.#giveBack(fetched.buffer);
    let decoded = 0;
    return results.map((result, index) => {
      if (result instanceof BlockError || good[decoded++] || group[index] === undefined) return result;
      return this.#damaged(group[index].place);
    });
  }

  #damaged({ offset }: CompressedPlace): BlockError {
    const text = `The compressed cluster at host offset ${offset} cannot be decompressed`;
    return withErrno('EIO', text, { node: this.#image.node });
  }

  async #readAlone(place: CompressedPlace): Promise<Uint8Array | BlockError> {
    try {
      await this.#image.raise('read_compressed');
      return await this.#read(place);
    } catch (error) {
      if (error instanceof BlockError) return error;
      throw error;
    }
  }
}

const NOTHING = new Uint8Array(0);

/** What came of a cluster. */
type Loaded = Uint8Array | BlockError;

interface Fetched {
  readonly offset: number;
  readonly buffer: Uint8Array;
  readonly bytes: Uint8Array;
}

/** A cluster that is to be decoded. */
interface Wanted {
  readonly place: CompressedPlace;
  /** Which one of those asked for. */
  readonly index: number;
  readonly target: Uint8Array | undefined;
}

/** Clusters in groups, each of which is read at once: their places ascend, with little between them. */
function neighbours(clusters: readonly Wanted[]): Wanted[][] {
  const groups: Wanted[][] = [];
  let group: Wanted[] = [];
  for (const cluster of clusters) {
    const { offset, length } = cluster.place;
    const [first, last] = [group[0]?.place, group.at(-1)?.place];
    const joins =
      first !== undefined &&
      last !== undefined &&
      // In the same sector, maybe.
      offset >= last.offset &&
      offset <= last.offset + last.length + GAP_MAX &&
      offset + length <= first.offset + FETCH_MAX;
    if (joins) group.push(cluster);
    else {
      group = [cluster];
      groups.push(group);
    }
  }
  return groups;
}
