/** Places for compressed clusters that are moved: packed by bytes into holes (Q-REF-7). */
import { alignDown } from '../../bytes/align.ts';
import type { Holes } from './compact-holes.ts';
import type { Qcow2Image } from './image.ts';
import type { HostOffset } from './tables.ts';

interface PackedPlace {
  readonly to: HostOffset;
  /** False: the bytes are there already, put by another entry that shares them. */
  readonly isNew: boolean;
}

export class CompressedPacker {
  readonly #image: Qcow2Image;
  readonly #holes: Holes;
  /** Room that is left in the last hole. */
  #at = 0;
  #end = 0;
  /** Where what snapshots share went. */
  readonly #known = new Map<HostOffset, HostOffset>();

  constructor(image: Qcow2Image, holes: Holes) {
    this.#image = image;
    this.#holes = holes;
  }

  /** A place for `length` bytes, which the caller counts `uses` times before it asks again; undefined: there is none. */
  async place(from: HostOffset, length: number, uses: number): Promise<PackedPlace | undefined> {
    const known = this.#known.get(from);
    if (known !== undefined && (await this.#canCount(known, length, uses))) return { to: known, isNew: false };
    const to = await this.#room(length, uses);
    if (to === undefined) return undefined;
    this.#at = to + length;
    if (this.#image.snapshots.length > 0) this.#known.set(from, to);
    return { to, isNew: true };
  }

  async #room(length: number, uses: number): Promise<HostOffset | undefined> {
    const { clusterSize } = this.#image.layout;
    const fits = async () => {
      while (this.#end - this.#at < length && (await this.#spill()));
      return this.#end - this.#at >= length;
    };
    if (this.#at < this.#end && (await this.#canCount(this.#at, this.#end - this.#at, uses)) && (await fits())) {
      return this.#at;
    }
    const hole = await this.#holes.next();
    if (hole < 0) return undefined;
    this.#at = hole * clusterSize;
    this.#end = this.#at + clusterSize;
    if (await fits()) return this.#at;
    this.#end = this.#at;
    return undefined;
  }

  /** Whether the room goes on in the cluster behind. */
  async #spill(): Promise<boolean> {
    const { clusterSize } = this.#image.layout;
    if (this.#end === 0 || !(await this.#holes.isHole(this.#end / clusterSize))) return false;
    this.#end += clusterSize;
    return true;
  }

  async #canCount(offset: HostOffset, length: number, uses: number): Promise<boolean> {
    const { refcounts, layout } = this.#image;
    for (let at = alignDown(offset, layout.clusterSize); at < offset + length; at += layout.clusterSize) {
      if ((await refcounts.get(at / layout.clusterSize)) + uses > refcounts.width.max) return false;
    }
    return true;
  }
}
