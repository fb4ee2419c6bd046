/** The files of a simulated host as plain data, the changes made to them, and what a crash leaves of unsynced ones. */
import type { HostFileKind } from '../core/host.ts';
import { SparseBytes } from './sparse-bytes.ts';

/** What a disk writes as a whole or not at all. */
export const SECTOR_SIZE = 512;

/** A change of a file, in bytes. */
export type FileChange =
  | { readonly kind: 'write'; readonly offset: number; readonly data: Uint8Array }
  | { readonly kind: 'punch' | 'zero' | 'allocate'; readonly offset: number; readonly length: number }
  | { readonly kind: 'truncate'; readonly length: number };

/** A change of a name; files are numbers. */
export type NameChange =
  | { readonly kind: 'make'; readonly path: string; readonly file: number }
  | { readonly kind: 'rename'; readonly from: string; readonly to: string }
  | { readonly kind: 'remove'; readonly path: string };

/** One thing that happened, in the order in which it took effect. */
export type LogEntry =
  | { readonly type: 'change'; readonly file: number; readonly path: string; readonly change: FileChange }
  | { readonly type: 'name'; readonly change: NameChange }
  /** Entries of the file before `covers` are durable, and so are all changes of names (as on a journalled file system). */
  | { readonly type: 'flush'; readonly file: number; readonly path: string; readonly covers: number }
  /** Left by the workload, for whoever checks a crash state. */
  | { readonly type: 'note'; readonly note: unknown };

export interface StoredFile {
  readonly kind: HostFileKind;
  readonly readOnly: boolean;
  readonly content: SparseBytes;
}

/** Names and contents. Several names never share a file; links are names that stand for other names. */
export class SimImage {
  readonly names = new Map<string, number>();
  readonly files = new Map<number, StoredFile>();
  readonly links = new Map<string, string>();

  clone(): SimImage {
    const copy = new SimImage();
    for (const [path, file] of this.names) copy.names.set(path, file);
    for (const [path, target] of this.links) copy.links.set(path, target);
    for (const [file, stored] of this.files) copy.files.set(file, { ...stored, content: stored.content.clone() });
    return copy;
  }

  make(file: number): void {
    this.files.set(file, { kind: 'regular', readOnly: false, content: new SparseBytes() });
  }

  changeName(change: NameChange): void {
    if (change.kind === 'make') this.names.set(change.path, change.file);
    else if (change.kind === 'remove') this.names.delete(change.path);
    else {
      const file = this.names.get(change.from);
      this.names.delete(change.from);
      if (file !== undefined) this.names.set(change.to, file);
    }
  }

  changeFile(file: number, change: FileChange, survival: Survival = 'whole'): void {
    const content = this.files.get(file)?.content;
    if (content !== undefined) applyChange(content, change, survival);
  }
}

/** What is left of one unsynced change: of a torn one the sectors kept, and whether the file still became longer. */
export type Survival = 'whole' | 'lost' | TornChange;
export interface TornChange {
  /** By sector of the change, counted from the sector that holds its first byte. */
  readonly kept: readonly boolean[];
  readonly grown: boolean;
}

/** Sectors that `change` touches; 0: it happens as a whole or not at all. */
export function sectorCount(change: FileChange): number {
  if (change.kind === 'truncate' || change.kind === 'allocate') return 0;
  const length = change.kind === 'write' ? change.data.length : change.length;
  return Math.ceil((change.offset + length) / SECTOR_SIZE) - Math.floor(change.offset / SECTOR_SIZE);
}

function applyRange(content: SparseBytes, change: FileChange, from: number, to: number): void {
  if (change.kind === 'write') content.write(from, change.data.subarray(from - change.offset, to - change.offset));
  else if (change.kind === 'punch') content.punch(from, to - from);
  else if (change.kind === 'zero') content.zero(from, to - from);
  else if (change.kind === 'allocate') content.allocate(from, to - from);
}

function applyChange(content: SparseBytes, change: FileChange, survival: Survival = 'whole'): void {
  if (survival === 'lost') return;
  if (change.kind === 'truncate') {
    content.truncate(change.length);
    return;
  }
  const end = change.offset + (change.kind === 'write' ? change.data.length : change.length);
  if (survival === 'whole') {
    applyRange(content, change, change.offset, end);
    return;
  }
  const first = Math.floor(change.offset / SECTOR_SIZE);
  survival.kept.forEach((kept, index) => {
    if (!kept) return;
    const start = (first + index) * SECTOR_SIZE;
    applyRange(content, change, Math.max(start, change.offset), Math.min(start + SECTOR_SIZE, end));
  });
  if (survival.grown && change.kind !== 'punch' && content.length < end) content.truncate(end);
}

export interface VolatileEntry {
  readonly index: number;
  readonly entry: Extract<LogEntry, { type: 'change' | 'name' }>;
}

/** Follows a log and knows at each point what is durable and what a crash may still lose or tear. */
export class CrashFront {
  readonly #durable: SimImage;
  #volatile: VolatileEntry[] = [];
  #next = 0;

  /** `start`: the image before the first entry, all of it durable. It is not changed. */
  constructor(start: SimImage) {
    this.#durable = start.clone();
  }

  get volatile(): readonly VolatileEntry[] {
    return this.#volatile;
  }

  advance(entry: LogEntry): void {
    const index = this.#next++;
    if (entry.type === 'change' || entry.type === 'name') {
      // A file exists before its name does, so that what is written to it has somewhere to go.
      if (entry.type === 'name' && entry.change.kind === 'make') this.#durable.make(entry.change.file);
      this.#volatile.push({ index, entry });
    } else if (entry.type === 'flush') this.#settle(entry.file, entry.covers);
  }

  /**
   * The image after a crash here. `survivals` has one for each volatile entry. Names change in order:
   * behind one that is lost all are.
   */
  image(survivals: readonly Survival[]): SimImage {
    const image = this.#durable.clone();
    let namesLost = false;
    this.#volatile.forEach(({ entry }, i) => {
      const survival = survivals[i] ?? 'lost';
      if (entry.type === 'change') image.changeFile(entry.file, entry.change, survival);
      else if (survival === 'lost') namesLost = true;
      else if (!namesLost) image.changeName(entry.change);
    });
    return image;
  }

  #settle(file: number, covers: number): void {
    this.#volatile = this.#volatile.filter(({ index, entry }) => {
      if (index >= covers) return true;
      if (entry.type === 'name') this.#durable.changeName(entry.change);
      else if (entry.file === file) this.#durable.changeFile(file, entry.change);
      else return true;
      return false;
    });
  }
}
