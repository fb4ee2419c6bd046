/** Which rules apply when: events, the state, the active list, breakpoints (BD-22 to BD-36). Touches no disk. */
import { SeededRandom } from '../../bytes/random.ts';
import { BlockError } from '../../core/errors.ts';
import { type DebugEvent, isDebugEvent } from './events.ts';
import { completeRule, type InjectError, type IoType, type Rule, type RuleOptions } from './rules.ts';

/** A rule in force. */
export interface LiveRule {
  /** For removing it. */
  readonly id: number;
  readonly rule: Rule;
  /** Requests that it hit, or state changes that it made. */
  readonly hits: number;
}

interface Entry {
  readonly id: number;
  readonly rule: Rule;
  hits: number;
  /** Requests that it could have hit, for `every` and `after`. */
  matches: number;
}

interface Breakpoint {
  readonly event: DebugEvent;
  readonly tag: string;
}

interface Suspended {
  readonly tag: string;
  resume(): void;
  cancel(error: BlockError): void;
}

/** How many of the last events a scenario is shown. */
const TRAIL = 32;

export class Engine {
  /** 1 after opening (BD-22). */
  state = 1;
  readonly chance: SeededRandom;
  /** Most recently added first. */
  #rules: Entry[] = [];
  #active: Entry[] = [];
  #breakpoints: Breakpoint[] = [];
  #suspended: Suspended[] = [];
  #nextId = 1;
  /** Drains under way. */
  #passing = 0;
  #trail: DebugEvent[] = [];
  /** Told of every suspension and resumption. */
  onSuspend: (tag: string) => void = () => {};
  onResume: (tag: string) => void = () => {};

  constructor(rules: readonly Rule[], seed: number) {
    this.chance = new SeededRandom(seed);
    for (const rule of rules) this.#add(rule);
  }

  /** Nothing can happen to any request. */
  get idle(): boolean {
    return this.#rules.length === 0 && this.#active.length === 0 && this.#breakpoints.length === 0;
  }

  /** The last events, oldest first. */
  get trail(): readonly DebugEvent[] {
    return this.#trail;
  }

  /** Oldest first. */
  rules(): LiveRule[] {
    return this.#rules.map(({ id, rule, hits }) => ({ id, rule, hits })).reverse();
  }

  /** Adds a rule to a live node (BD-60); one of event `none` is armed at once. Returns its id. */
  add(given: RuleOptions): number {
    const entry = this.#add(completeRule(given));
    if (entry.rule.event === 'none' && entry.rule.kind === 'inject-error') this.#active.unshift(entry);
    return entry.id;
  }

  #add(rule: Rule): Entry {
    const entry: Entry = { id: this.#nextId++, rule, hits: 0, matches: 0 };
    this.#rules.unshift(entry);
    return entry;
  }

  /** ENOENT if there is no rule of that id. */
  remove(id: number): void {
    if (!this.#rules.some((entry) => entry.id === id)) {
      throw new BlockError('ENOENT', `There is no rule ${id}`);
    }
    this.#forget((entry) => entry.id === id);
  }

  #forget(which: (entry: Entry) => boolean): void {
    this.#rules = this.#rules.filter((entry) => !which(entry));
    this.#active = this.#active.filter((entry) => !which(entry));
  }

  /** An event (BD-23, BD-24). A promise holds its request up until it is resumed. */
  event(name: string): Promise<void> | undefined {
    if (!isDebugEvent(name)) return undefined;
    if (this.#trail.push(name) > TRAIL) this.#trail.shift();
    if (this.idle) return undefined;
    this.#process(name);
    return this.#suspendAt(name);
  }

  /** Against the state at the event's start; the set-state rule that was added first has the last word. */
  #process(event: DebugEvent): void {
    const before = this.state;
    let emptied = false;
    for (const entry of this.#rules) {
      const { rule } = entry;
      if (rule.event !== event || (rule.state !== 0 && rule.state !== before)) continue;
      if (rule.kind === 'set-state') {
        this.state = rule.newState;
        entry.hits++;
        continue;
      }
      if (!emptied) this.#active = [];
      emptied = true;
      this.#active.unshift(entry);
    }
  }

  /** The rule that decides about a request (BD-25, BD-26), if any does. Counts it. */
  decide(type: IoType, offset: number, length: number): InjectError | undefined {
    for (const entry of this.#active) {
      const { rule } = entry;
      if (rule.kind !== 'inject-error' || !rule.ioTypes.has(type) || !concerns(rule, offset, length)) continue;
      if (!this.#takes(entry, rule)) continue;
      entry.hits++;
      // One that lets requests succeed is not used up, as in QEMU (BD-25).
      if (rule.once && (rule.action !== 'error' || rule.errno !== undefined)) this.#forget((other) => other === entry);
      return rule;
    }
    return undefined;
  }

  #takes(entry: Entry, { after, every, probability }: InjectError): boolean {
    const match = entry.matches++ - after;
    if (match < 0 || match % every !== 0) return false;
    return this.chance.chance(probability);
  }

  /** BD-30. ENOENT for an event that there is not. */
  breakpoint(event: string, tag: string): void {
    if (!isDebugEvent(event)) throw new BlockError('ENOENT', `There is no event '${event}'`);
    this.#breakpoints.unshift({ event, tag });
  }

  /** Every breakpoint on the event stops the request, all at once: each needs a resume (BD-31). */
  #suspendAt(event: DebugEvent): Promise<void> | undefined {
    if (this.#passing > 0) return undefined;
    const here = this.#breakpoints.filter((breakpoint) => breakpoint.event === event);
    if (here.length === 0) return undefined;
    this.#breakpoints = this.#breakpoints.filter((breakpoint) => breakpoint.event !== event);
    return this.#suspendAll(here);
  }

  async #suspendAll(breakpoints: readonly Breakpoint[]): Promise<void> {
    await Promise.all(breakpoints.map(({ tag }) => this.#suspend(tag)));
  }

  #suspend(tag: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const resume = () => {
        this.onResume(tag);
        resolve();
      };
      this.#suspended.push({ tag, resume, cancel: reject });
      this.onSuspend(tag);
    });
  }

  /** Wakes the first that waits under the tag (BD-32). ENOENT if none does. */
  resume(tag: string): void {
    const index = this.#suspended.findIndex((request) => request.tag === tag);
    if (index < 0) throw new BlockError('ENOENT', `No request is suspended under '${tag}'`);
    const [request] = this.#suspended.splice(index, 1);
    request?.resume();
  }

  /** BD-33. */
  removeBreakpoint(tag: string): void {
    const waiting = this.#suspended.filter((request) => request.tag === tag);
    const known = this.#breakpoints.some((breakpoint) => breakpoint.tag === tag);
    if (!known && waiting.length === 0) throw new BlockError('ENOENT', `There is no breakpoint '${tag}'`);
    this.#breakpoints = this.#breakpoints.filter((breakpoint) => breakpoint.tag !== tag);
    this.#suspended = this.#suspended.filter((request) => request.tag !== tag);
    for (const request of waiting) request.resume();
  }

  /** BD-34. */
  isSuspended(tag: string): boolean {
    return this.#suspended.some((request) => request.tag === tag);
  }

  /** Whether nothing is to be held back now. */
  get passing(): boolean {
    return this.#passing > 0;
  }

  /**
   * All that wait go on, and what reaches a breakpoint passes it, until the result is called: so a drain comes to an end
   * (BD-36). Breakpoints stay for whom they stop later.
   */
  letPass(): () => void {
    this.#passing++;
    const waiting = this.#suspended;
    this.#suspended = [];
    for (const request of waiting) request.resume();
    return () => {
      this.#passing--;
    };
  }

  /** All that wait fail with ECANCELED (BD-36). */
  cancelAll(): void {
    const waiting = this.#suspended;
    this.#suspended = [];
    this.#breakpoints = [];
    for (const request of waiting) {
      request.cancel(new BlockError('ECANCELED', 'The request was suspended at a breakpoint when its node was closed'));
    }
  }
}

/** The first byte of the rule lies in the request (BD-25); with a longer range, the two overlap. */
function concerns({ range }: InjectError, offset: number, length: number): boolean {
  if (range === undefined) return true;
  return range.offset < offset + length && offset < range.offset + range.length;
}
