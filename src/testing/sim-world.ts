/** What the files of one simulated host share: contents, log, chance, faults, space, counters. */

import { SeededRandom } from '../bytes/random.ts';
import { BlockError, type ErrorCode, errorText } from '../core/errors.ts';
import type { HostFileKind } from '../core/host.ts';
import type { SimClock } from './sim-clock.ts';
import { type FaultRequest, SimFaults, type SimOperation } from './sim-faults.ts';
import type { FileChange, LogEntry, NameChange, SimImage } from './sim-image.ts';
import { SimLocks } from './sim-locks.ts';

/** Features that a host may lack; the operation then fails with ENOTSUP (`extent`: everything is data). */
export type SimFeature = 'allocate' | 'punchHole' | 'zeroRange' | 'copyFrom' | 'extent' | 'lock' | 'direct';

/** How a {@link SimHost} behaves. */
export interface SimSettings {
  readonly seed: number;
  /** Virtual milliseconds that each operation takes, drawn evenly. 0 for both: done in the next microtask, in order. */
  readonly latency: { readonly min: number; readonly max: number };
  /** How often tryReadNow and tryWriteNow refuse, 0 to 1. */
  readonly refuseNow: number;
  /** Keep the log that crashes need. */
  readonly record: boolean;
  /** Bytes of storage, in whole pages; beyond: ENOSPC. */
  readonly capacity: number;
  /** Operations after which the host refuses to go on, to end loops that would not. */
  readonly operationBudget: number;
  readonly missing: readonly SimFeature[];
  /** What `direct` requests must be a multiple of. */
  readonly directAlign: number;
  /** Which events are listened to, and so recorded. Default: all but those of single requests, which cost the fast path. */
  watch(channel: string): boolean;
}

/** Operations done, by kind, and bytes moved. */
export interface SimCounters {
  readonly operations: Partial<Record<SimOperation, number>>;
  total: number;
  bytesRead: number;
  bytesWritten: number;
}

/** Thrown, not as a BlockError, when {@link SimSettings.operationBudget} is used up. */
export class SimBudgetError extends Error {
  override readonly name = 'SimBudgetError';
}

export function simError(code: ErrorCode): BlockError {
  return new BlockError(code, errorText(code));
}

export class SimWorld {
  readonly settings: SimSettings;
  readonly clock: SimClock;
  readonly image: SimImage;
  /** As it was before the first entry of the log. */
  readonly start: SimImage;
  readonly log: LogEntry[] = [];
  readonly faults = new SimFaults();
  readonly openPaths = new Map<object, string>();
  readonly counters: SimCounters = { operations: {}, total: 0, bytesRead: 0, bytesWritten: 0 };
  readonly chance: SeededRandom;
  capacity: number;
  crashed = false;
  readonly #locks = new Map<number, SimLocks>();
  #nextFile: number;

  constructor(image: SimImage, clock: SimClock, settings: SimSettings) {
    this.image = image;
    this.start = image.clone();
    this.clock = clock;
    this.settings = settings;
    this.capacity = settings.capacity;
    this.chance = new SeededRandom(settings.seed);
    this.#nextFile = Math.max(0, ...image.files.keys()) + 1;
  }

  has(feature: SimFeature): boolean {
    return !this.settings.missing.includes(feature);
  }

  /** Waits as long as the operation takes, then lets it happen or fails it. */
  async enter(request: FaultRequest): Promise<void> {
    this.count(request.operation);
    const { min, max } = this.settings.latency;
    if (max > 0) await this.clock.sleep(min + this.chance.fraction() * (max - min));
    else await undefined;
    if (this.crashed) throw simError('EIO');
    const code = this.faults.strike(request);
    if (code !== undefined) throw simError(code);
  }

  /** Counts an operation. False when the budget is used up. */
  withinBudget(operation: SimOperation): boolean {
    this.counters.total++;
    this.counters.operations[operation] = (this.counters.operations[operation] ?? 0) + 1;
    return this.counters.total <= this.settings.operationBudget;
  }

  count(operation: SimOperation): void {
    if (!this.withinBudget(operation)) {
      throw new SimBudgetError(`more than ${this.settings.operationBudget} operations`);
    }
  }

  change(file: number, path: string, change: FileChange): void {
    if (this.settings.record) {
      // The caller may use its buffer again.
      const kept = change.kind === 'write' ? { ...change, data: change.data.slice() } : change;
      this.log.push({ type: 'change', file, path, change: kept });
    }
    this.image.changeFile(file, change);
  }

  changeName(change: NameChange): void {
    if (this.settings.record) this.log.push({ type: 'name', change });
    this.image.changeName(change);
  }

  /** Bytes of storage that are left. */
  space(): number {
    let used = 0;
    for (const { content } of this.image.files.values()) used += content.allocated;
    return this.capacity - used;
  }

  /** A number no file has had. */
  newFile(): number {
    return this.#nextFile++;
  }

  makeFile(path: string): number {
    const file = this.newFile();
    this.image.make(file);
    this.changeName({ kind: 'make', path, file });
    return file;
  }

  locks(file: number): SimLocks {
    let locks = this.#locks.get(file);
    if (locks === undefined) {
      locks = new SimLocks();
      this.#locks.set(file, locks);
    }
    return locks;
  }

  /** The name with links followed; ELOOP when they lead nowhere. */
  resolve(path: string): string {
    let name = normalise(path);
    for (let hops = 0; hops < 40; hops++) {
      const target = this.image.links.get(name);
      if (target === undefined) return name;
      name = normalise(target.startsWith('/') ? target : `${name.slice(0, name.lastIndexOf('/') + 1)}${target}`);
    }
    throw simError('ELOOP');
  }

  /** What a resolved name stands for; folders are there as soon as something is in them. */
  find(name: string): { file: number; kind: HostFileKind } | 'directory' | undefined {
    const file = this.image.names.get(name);
    const stored = file === undefined ? undefined : this.image.files.get(file);
    if (file !== undefined && stored !== undefined) return { file, kind: stored.kind };
    // The folder that relative names are seen from.
    if (name === '') return 'directory';
    const prefix = name.endsWith('/') ? name : `${name}/`;
    for (const other of this.image.names.keys()) if (other.startsWith(prefix)) return 'directory';
    return undefined;
  }
}

/** Drops `.`, `..` and doubled slashes. */
export function normalise(path: string): string {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..' && parts.length > 0) parts.pop();
    else if (part !== '' && part !== '.' && part !== '..') parts.push(part);
  }
  return (path.startsWith('/') ? '/' : '') + parts.join('/');
}
