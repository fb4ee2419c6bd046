/** A blkdebug node at work: its requests, and the handle by which its rules are changed while it is open (BD-60, BD-62). */
import type { Child, DriverNode, TruncateOptions, WriteFlags, ZeroFlags } from '../../core/driver.ts';
import type { Host } from '../../core/host.ts';
import { type NodeTarget, nodeOf } from '../../core/node.ts';
import { type Action, actionOf, flip, injected, type Scenario } from './actions.ts';
import { Engine, type LiveRule } from './engine.ts';
import { HeldWrites } from './held-writes.ts';
import { checkAction } from './rule-checks.ts';
import type { IoType, Rule, RuleOptions } from './rules.ts';

/** A request, and what was done to it. Bytes. */
export interface StruckRequest {
  /** How many requests came before. */
  readonly index: number;
  readonly type: IoType;
  readonly offset: number;
  readonly length: number;
  readonly action: Action;
}

interface Parts {
  readonly file: Child;
  readonly host: Host;
  readonly node: string;
  readonly rules: readonly Rule[];
  readonly seed: number;
}

const controls = new WeakMap<Partial<DriverNode>, Blkdebug>();

/** Remembers the control of an opened driver. */
export function register(impl: Partial<DriverNode>, control: Blkdebug): void {
  controls.set(impl, control);
}

/** The rules of a blkdebug node, to be listed and changed while it is open. TypeError for another node. */
export function blkdebugOf(target: NodeTarget): Blkdebug {
  const node = nodeOf(target);
  const control = controls.get(node.impl);
  if (control === undefined) throw new TypeError(`node '${node.name}' is no blkdebug node`);
  return control;
}

/** The rules of an open blkdebug filter, to be listed, added and removed; see {@link blkdebugOf}. */
export class Blkdebug {
  readonly engine: Engine;
  /** Told of every fault, before it strikes. */
  onFault: (struck: StruckRequest) => void = () => {};
  readonly #file: Child;
  readonly #host: Host;
  readonly #node: string;
  readonly #held: HeldWrites;
  #scenario: Scenario | undefined;
  #requests = 0;
  /** Something was written since the last flush. */
  #unflushed = false;
  #delays = new AbortController();

  constructor({ file, host, node, rules, seed }: Parts) {
    this.engine = new Engine(rules, seed);
    this.#file = file;
    this.#host = host;
    this.#node = node;
    this.#held = new HeldWrites((offset, data) => file.write(offset, data));
  }

  /** Nothing can happen to a request now. */
  get idle(): boolean {
    return this.engine.idle && this.#scenario === undefined && this.#held.empty;
  }

  /** Rules in force with how often they hit, in the order they were added. */
  rules(): LiveRule[] {
    return this.engine.rules();
  }

  /** Adds a rule; one of event `none` is armed at once. Returns its id. Throws BlockError EINVAL. */
  add(rule: RuleOptions): number {
    return this.engine.add(rule);
  }

  /** Throws BlockError ENOENT if there is no rule of that id. */
  remove(id: number): void {
    this.engine.remove(id);
  }

  /**
   * Has a function decide about each request, after the rules; undefined: no more. A request for which it returns what is no
   * action, or one out of range, fails with EINVAL.
   */
  setScenario(scenario: Scenario | undefined): void {
    this.#scenario = scenario;
  }

  /** At once, while nothing can happen to it. */
  tryWriteNow(offset: number, source: Uint8Array): boolean {
    if (!this.idle || !this.#file.tryWriteNow(offset, source)) return false;
    this.#unflushed = true;
    return true;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    const action = await this.#act('read', offset, target.length);
    if (action === 'done') return;
    if (!this.#held.empty) await this.#held.settle(offset, target.length);
    await this.#file.read(offset, target);
    if (action?.kind === 'corrupt') flip(target, action.bits);
  }

  async write(offset: number, source: Uint8Array, flags: WriteFlags): Promise<void> {
    this.#unflushed = true;
    const action = await this.#act('write', offset, source.length, source);
    if (action === 'done') return;
    // A durable write is told as done only when it is.
    if (action?.kind === 'reorder' && flags.fua !== true) return this.#held.hold(offset, source);
    const { place, length } = this.#landing(action, offset, source.length);
    if (!this.#held.empty) await this.#held.settle(place, length);
    let data = source.subarray(0, length);
    if (action?.kind === 'corrupt') {
      data = data.slice();
      flip(data, action.bits);
    }
    if (length > 0) await this.#file.write(place, data, flags);
    if (action?.kind === 'torn' && action.errno !== undefined) throw injected(action.errno, this.#node);
  }

  /** Where a write comes down, and how much of it. What is misdirected past the disk's end is lost: it makes no disk longer. */
  #landing(action: Action | undefined, offset: number, length: number): { place: number; length: number } {
    if (action?.kind === 'torn') return { place: offset, length: Math.min(action.bytes, length) };
    if (action?.kind !== 'misdirect') return { place: offset, length };
    const place = action.target;
    return { place, length: Math.max(0, Math.min(length, this.#file.length() - place)) };
  }

  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    this.#unflushed = true;
    const action = await this.#act('write-zeroes', offset, length);
    if (action === 'done') return;
    const { place, length: bytes } = this.#landing(action, offset, length);
    if (!this.#held.empty) await this.#held.settle(place, bytes);
    if (bytes > 0) await this.#file.writeZeroes(place, bytes, flags);
    if (action?.kind === 'torn' && action.errno !== undefined) throw injected(action.errno, this.#node);
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#unflushed = true;
    if ((await this.#act('discard', offset, length)) === 'done') return;
    if (!this.#held.empty) await this.#held.settle(offset, length);
    await this.#file.discard(offset, length);
  }

  async truncate(length: number, options: TruncateOptions): Promise<void> {
    this.#unflushed = true;
    if (!this.#held.empty) await this.#held.settleAll(this.engine.chance);
    await this.#file.truncate(length, options);
  }

  /** Where nothing was written, there is nothing that a rule could fail, as in QEMU. */
  async flush(): Promise<void> {
    if (!this.#unflushed) return this.#file.flush();
    this.#unflushed = false;
    try {
      if ((await this.#act('flush', 0, 0)) === 'done') return;
      if (!this.#held.empty) await this.#held.settleAll(this.engine.chance);
      await this.#file.flush();
    } catch (error) {
      this.#unflushed = true;
      throw error;
    }
  }

  async status(offset: number, length: number): Promise<void> {
    if (!this.idle) await this.#act('block-status', offset, length);
  }

  /** A drain waits: nothing is held back until the result is called. */
  letPass(): () => void {
    this.#endDelays();
    return this.engine.letPass();
  }

  /** The node is about to close: what is suspended fails, what is delayed goes on. */
  cancelAll(): void {
    this.engine.cancelAll();
    this.#endDelays();
  }

  #endDelays(): void {
    this.#delays.abort();
    this.#delays = new AbortController();
  }

  async #delay(milliseconds: number): Promise<void> {
    if (this.engine.passing) return;
    const { signal } = this.#delays;
    await this.#host.clock.sleep(milliseconds, signal).catch((error) => {
      if (!signal.aborted) throw error;
    });
  }

  async close(): Promise<void> {
    this.cancelAll();
    if (!this.#held.empty) await this.#held.settleAll(this.engine.chance);
  }

  /**
   * What is to happen to a request, once it may go on: `done` if it succeeds and nothing is to be done; it throws where
   * it fails. Actions that only some requests know do nothing to others.
   */
  async #act(type: IoType, offset: number, length: number, data?: Uint8Array): Promise<Action | 'done' | undefined> {
    const index = this.#requests++;
    const rule = this.engine.decide(type, offset, length);
    let action = rule && actionOf(rule, length, this.engine.chance);
    if (action === undefined && this.#scenario !== undefined) {
      action = await this.#scenario({ type, offset, length, data, events: [...this.engine.trail], index });
      if (action !== undefined) checkAction(action);
    }
    if (action === undefined) return undefined;
    this.#trace({ index, type, offset, length, action });
    if (action.kind === 'error') {
      // As real I/O would fail: on a later turn of the loop (BD-27).
      if (action.immediately !== true) await this.#host.clock.sleep(0);
      // Nothing goes wrong then; the rule only shadows others.
      if (action.errno === undefined) return undefined;
      throw injected(action.errno, this.#node);
    }
    if (action.kind === 'delay') await this.#delay(action.ms);
    if (action.kind === 'drop') return type === 'read' ? undefined : 'done';
    return action;
  }

  #trace(struck: StruckRequest): void {
    this.onFault(struck);
    const channel = 'diskwright:fault';
    if (!this.#host.watched(channel)) return;
    const { type, offset, length, action } = struck;
    this.#host.publish(channel, { node: this.#node, type, offset, length, action: action.kind });
  }
}
