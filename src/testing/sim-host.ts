/**
 * A host that exists in memory only: files with crash semantics, virtual time, chance from a seed, errors on demand.
 * One seed gives one run, with any interleaving of requests that the seed's latencies make.
 */

import { SeededRandom } from '../bytes/random.ts';
import { BlockError } from '../core/errors.ts';
import type { Host, HostClock, HostFileKind, HostFiles } from '../core/host.ts';
import { invariant } from '../core/invariant.ts';
import { SimClock } from './sim-clock.ts';
import type { SimFaults } from './sim-faults.ts';
import { simFiles } from './sim-files.ts';
import { CrashFront, type LogEntry, SimImage } from './sim-image.ts';
import { randomSurvivals } from './sim-survival.ts';
import { normalise, type SimCounters, type SimSettings, SimWorld } from './sim-world.ts';
import { SparseBytes } from './sparse-bytes.ts';

/** Options of a {@link SimHost}. */
export type SimHostOptions = Partial<SimSettings>;

const DEFAULTS: SimSettings = {
  seed: 1,
  latency: { min: 0, max: 0 },
  refuseNow: 0,
  record: true,
  capacity: Number.POSITIVE_INFINITY,
  operationBudget: Number.POSITIVE_INFINITY,
  missing: [],
  directAlign: 512,
  watch: (channel) => channel !== 'diskwright:request',
};

/** A host in memory, with files, time and chance of its own, whose crashes lose and tear what was not flushed. */
export class SimHost implements Host {
  readonly clock: HostClock;
  readonly files: HostFiles;
  readonly settings: SimSettings;
  /** What was warned of, noticed and published, in order. */
  readonly warnings: string[] = [];
  readonly notices: string[] = [];
  readonly events: { readonly channel: string; readonly message: object }[] = [];
  readonly #world: SimWorld;
  readonly #random: SeededRandom;

  /** `image`: what is there at first, all of it durable; not changed. */
  constructor(options: SimHostOptions = {}, image = new SimImage()) {
    this.settings = { ...DEFAULTS, ...options };
    const clock = new SimClock();
    this.clock = clock;
    this.#world = new SimWorld(image.clone(), clock, this.settings);
    this.#random = new SeededRandom(this.settings.seed + 1);
    this.files = simFiles(this.#world);
  }

  get faults(): SimFaults {
    return this.#world.faults;
  }

  get counters(): Readonly<SimCounters> {
    return this.#world.counters;
  }

  /** Everything since the start, for crashes; empty without `record`. */
  get log(): readonly LogEntry[] {
    return this.#world.log;
  }

  /** Files that are open now; empty when nothing leaked. */
  get openFiles(): readonly string[] {
    return [...this.#world.openPaths.values()];
  }

  /** Bytes of storage in all, as for {@link SimSettings.capacity}; may be changed at any time. */
  set capacity(bytes: number) {
    this.#world.capacity = bytes;
  }

  /** Puts a durable file there before the log begins, replacing what was there. A number: so many bytes of zeroes, as a hole. */
  put(
    path: string,
    content: Uint8Array | number,
    traits: { readonly kind?: HostFileKind; readonly readOnly?: boolean } = {},
  ): void {
    invariant(this.#world.log.length === 0, 'files are put before the first change');
    const bytes = new SparseBytes(typeof content === 'number' ? content : 0);
    if (typeof content !== 'number') bytes.write(0, content);
    const stored = { kind: traits.kind ?? 'regular', readOnly: traits.readOnly ?? false, content: bytes };
    const file = this.#world.newFile();
    for (const image of [this.#world.image, this.#world.start]) {
      image.files.set(file, { ...stored, content: bytes.clone() });
      image.names.set(normalise(path), file);
    }
  }

  /** Makes `path` a symbolic link. */
  link(path: string, target: string): void {
    this.#world.image.links.set(normalise(path), target);
    this.#world.start.links.set(normalise(path), target);
  }

  /** All bytes of a file as they are now. ENOENT when it is not there. */
  contents(path: string): Uint8Array {
    const content = this.#content(path);
    return content.bytes();
  }

  exists(path: string): boolean {
    return this.#world.image.names.has(this.#world.resolve(path));
  }

  /** Leaves a mark in the log for whoever checks a crash state. */
  note(note: unknown): void {
    if (this.settings.record) this.#world.log.push({ type: 'note', note });
  }

  /** The present files as an image of their own. */
  snapshot(): SimImage {
    return this.#world.image.clone();
  }

  /** What was there before the first entry of the log. */
  startImage(): SimImage {
    return this.#world.start.clone();
  }

  /**
   * Cuts the power: every request under way or to come fails, and the result is a host with what survived:
   * all that was flushed, and of the rest some, none, or torn sectors, by `seed`.
   */
  crash(seed: number): SimHost {
    invariant(this.settings.record, 'a host that does not record cannot crash');
    this.#world.crashed = true;
    const front = new CrashFront(this.#world.start);
    for (const entry of this.#world.log) front.advance(entry);
    const survivals = randomSurvivals(front.volatile, new SeededRandom(seed));
    return new SimHost({ ...this.settings, seed }, front.image(survivals));
  }

  random(target: Uint8Array): void {
    this.#random.fill(target);
  }

  warn(message: string): void {
    this.warnings.push(message);
  }

  notice(message: string): void {
    this.notices.push(message);
  }

  watched(channel: string): boolean {
    return this.settings.watch(channel);
  }

  publish(channel: string, message: object): void {
    this.events.push({ channel, message });
  }

  #content(path: string): SparseBytes {
    const found = this.#world.find(this.#world.resolve(path));
    const content =
      found === undefined || found === 'directory' ? undefined : this.#world.image.files.get(found.file)?.content;
    if (content === undefined) throw new BlockError('ENOENT', `No such file: ${path}`);
    return content;
  }
}
