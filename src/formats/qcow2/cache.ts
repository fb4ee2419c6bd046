/**
 * A cache of metadata: pieces of one length at their offsets in the file, least recently used first out (Q-OPT-2).
 * Memory is taken as pieces come in. Who changes a piece marks it; whoever writes pieces back takes them from here.
 */
import { viewOf } from '../../bytes/big-endian.ts';

export interface CacheEntry {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  dirty: boolean;
  /** Nobody has asked for it since the cache was last cleaned. */
  idle: boolean;
  /** Being written back: it must not leave, since the file may still hold what was before. */
  writing: number;
}

export interface CacheSource {
  /** Fills `bytes` from the file. */
  load(offset: number, bytes: Uint8Array): Promise<void>;
  /** Writes dirty pieces back, so that some are clean; called when the cache is full of those. */
  writeBack(): Promise<void>;
}

export class MetadataCache {
  readonly entryBytes: number;
  maxEntries: number;
  readonly #source: CacheSource;
  /** Least recently used first. */
  readonly #entries = new Map<number, CacheEntry>();
  readonly #loading = new Map<number, Promise<void>>();
  #newest: CacheEntry | undefined;

  constructor(entryBytes: number, maxEntries: number, source: CacheSource) {
    this.entryBytes = entryBytes;
    this.maxEntries = maxEntries;
    this.#source = source;
  }

  /** What is there, at once. */
  peek(offset: number): CacheEntry | undefined {
    const newest = this.#newest;
    if (newest !== undefined && newest.offset === offset) return newest;
    const entry = this.#entries.get(offset);
    if (entry === undefined) return undefined;
    this.#entries.delete(offset);
    this.#entries.set(offset, entry);
    entry.idle = false;
    this.#newest = entry;
    return entry;
  }

  /** The piece, read if it must be. It is in the cache when this resolves, and until the caller waits for something. */
  async get(offset: number): Promise<CacheEntry> {
    for (;;) {
      const entry = this.peek(offset);
      if (entry !== undefined) return entry;
      await this.#load(offset);
    }
  }

  #load(offset: number): Promise<void> {
    let loading = this.#loading.get(offset);
    if (loading === undefined) {
      loading = this.#read(offset).finally(() => this.#loading.delete(offset));
      this.#loading.set(offset, loading);
    }
    return loading;
  }

  async #read(offset: number): Promise<void> {
    await this.#makeRoom();
    const bytes = new Uint8Array(this.entryBytes);
    await this.#source.load(offset, bytes);
    // Someone may have put a new piece there meanwhile.
    if (!this.#entries.has(offset)) this.#insert(offset, bytes);
  }

  /** Puts a piece there that is new in the file, dirty. */
  put(offset: number, bytes: Uint8Array): CacheEntry {
    this.#entries.delete(offset);
    const entry = this.#insert(offset, bytes);
    entry.dirty = true;
    return entry;
  }

  #insert(offset: number, bytes: Uint8Array): CacheEntry {
    const entry = { offset, bytes, view: viewOf(bytes), dirty: false, idle: false, writing: 0 };
    this.#entries.set(offset, entry);
    this.#newest = entry;
    return entry;
  }

  /** Pieces on their way in may go past the limit; the next one to come takes them out again. */
  async #makeRoom(): Promise<void> {
    while (this.#entries.size >= this.maxEntries) {
      if (this.#evictClean()) continue;
      if (![...this.#entries.values()].some((entry) => entry.dirty)) return;
      await this.#source.writeBack();
      if (!this.#evictClean()) return;
    }
  }

  #evictClean(): boolean {
    for (const entry of this.#entries.values()) {
      if (entry.dirty || entry.writing > 0) continue;
      this.drop(entry.offset);
      return true;
    }
    return false;
  }

  /** Forgets a piece, whatever it holds. */
  drop(offset: number): void {
    if (this.#newest?.offset === offset) this.#newest = undefined;
    this.#entries.delete(offset);
  }

  /** Forgets all clean pieces. */
  dropClean(): void {
    for (const { dirty, writing, offset } of this.#entries.values()) if (!dirty && writing === 0) this.drop(offset);
  }

  /** Forgets clean pieces that nobody has asked for since the last call (Q-OPT-3). */
  dropIdle(): void {
    for (const entry of this.#entries.values()) {
      if (entry.idle && !entry.dirty && entry.writing === 0) this.drop(entry.offset);
      entry.idle = true;
    }
    // The one that is found at a glance is looked for, once, so that it is known to be asked for.
    this.#newest = undefined;
  }

  /** Forgets everything, changes too: the file is another. */
  forgetAll(): void {
    this.#entries.clear();
    this.#newest = undefined;
  }

  get isDirty(): boolean {
    for (const entry of this.#entries.values()) if (entry.dirty) return true;
    return false;
  }

  /** Dirty pieces with a copy of each as it is now; they count as clean from here on, and are pinned until {@link settle}. */
  takeDirty(): TakenEntry[] {
    const taken: TakenEntry[] = [];
    for (const entry of this.#entries.values()) {
      if (!entry.dirty) continue;
      entry.dirty = false;
      entry.writing++;
      taken.push({ entry, bytes: entry.bytes.slice() });
    }
    return taken;
  }

  /** Unpins what was taken; what could not be written is dirty again. */
  settle(taken: readonly TakenEntry[], written: boolean): void {
    for (const { entry } of taken) {
      entry.writing--;
      if (!written) entry.dirty = true;
    }
  }
}

export interface TakenEntry {
  readonly entry: CacheEntry;
  readonly bytes: Uint8Array;
}
