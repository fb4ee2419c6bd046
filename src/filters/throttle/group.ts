/**
 * A throttle group: limits that its members share. Requests that must wait do so in a queue per member, reads and
 * writes apart; members take turns, and so do reads and writes.
 */
import type { HostClock } from '../../core/host.ts';
import type { IoLimiter, LimitedKind } from '../../core/io-limiter.ts';
import { type Bucket, delay, emptyBucket, leak, pour } from './leaky-bucket.ts';
import { BUCKET_NAMES, type BucketName, type ThrottleLimits } from './limits.ts';

/** A node or device whose requests the group limits. */
export interface ThrottleMember extends IoLimiter {
  readonly group: ThrottleGroup;
}

/** A request that waits. */
interface Waiter {
  readonly bytes: number;
  readonly pass: () => void;
  next: Waiter | undefined;
}

/** First in, first out. */
interface Queue {
  first: Waiter | undefined;
  last: Waiter | undefined;
}

/** A member as the group sees it: what waits, by kind. */
type Queues = Readonly<Record<LimitedKind, Queue>>;

const BUCKETS_OF: Readonly<Record<LimitedKind, readonly BucketName[]>> = {
  read: ['bps-total', 'bps-read', 'iops-total', 'iops-read'],
  write: ['bps-total', 'bps-write', 'iops-total', 'iops-write'],
};

const KINDS = ['read', 'write'] as const;
const OTHER = { read: 'write', write: 'read' } as const;

export class ThrottleGroup {
  readonly name: string;
  readonly #clock: HostClock;
  readonly #buckets: Readonly<Record<BucketName, Bucket>>;
  readonly #members = new Set<Member>();
  /** Members with requests that wait, the one whose turn it is first. */
  readonly #waiting: Record<LimitedKind, Queues[]> = { read: [], write: [] };
  #limits: ThrottleLimits;
  #limited: Readonly<Record<LimitedKind, boolean>>;
  /** The kind whose turn it is when both could pass. */
  #turn: LimitedKind = 'read';
  /** The one timer: when it will end, milliseconds, and how to stop it. */
  #timer: { readonly due: number; readonly abort: AbortController } | undefined;

  constructor(name: string, limits: ThrottleLimits, clock: HostClock) {
    this.name = name;
    this.#limits = limits;
    this.#limited = limitedKinds(limits);
    this.#clock = clock;
    const now = clock.now();
    const buckets = BUCKET_NAMES.map((bucket) => [bucket, emptyBucket(now)] as const);
    this.#buckets = Object.fromEntries(buckets) as Record<BucketName, Bucket>;
  }

  get limits(): ThrottleLimits {
    return this.#limits;
  }

  /** From now on; what waits is judged anew, and what passed before still counts. */
  set limits(limits: ThrottleLimits) {
    this.#leak();
    this.#limits = limits;
    this.#limited = limitedKinds(limits);
    for (const name of BUCKET_NAMES) forgetUnlimited(this.#buckets[name], limits[name].average, limits[name].max);
    this.#dispatch();
  }

  get memberCount(): number {
    return this.#members.size;
  }

  join(): ThrottleMember {
    const member = new Member(this);
    this.#members.add(member);
    return member;
  }

  /** For members only. */
  admit(kind: LimitedKind, bytes: number, queues: Queues): Promise<void> | undefined {
    if (!this.#limited[kind]) return undefined;
    if (this.mayPass(kind)) {
      this.#pour(kind, bytes);
      return undefined;
    }
    return new Promise((pass) => {
      const queue = queues[kind];
      if (queue.first === undefined) this.#waiting[kind].push(queues);
      enqueue(queue, { bytes, pass, next: undefined });
      this.#dispatch();
    });
  }

  /** For members only: nobody waits, and the limits allow it. */
  mayPass(kind: LimitedKind): boolean {
    if (!this.#limited[kind]) return true;
    if (this.#waiting.read.length > 0 || this.#waiting.write.length > 0) return false;
    this.#leak();
    return this.#delay(kind) === 0;
  }

  /** For members only: counts a request that passes whatever the limits. */
  count(kind: LimitedKind, bytes: number): void {
    if (!this.#limited[kind]) return;
    this.#leak();
    this.#pour(kind, bytes);
  }

  /** For members only: lets all that waits in `queues` pass. */
  release(queues: Queues): void {
    for (const kind of KINDS) {
      this.#waiting[kind] = this.#waiting[kind].filter((other) => other !== queues);
      for (let waiter = dequeue(queues[kind]); waiter !== undefined; waiter = dequeue(queues[kind])) {
        this.count(kind, waiter.bytes);
        waiter.pass();
      }
    }
    this.#arm();
  }

  /** For members only. */
  remove(member: Member): void {
    this.#members.delete(member);
  }

  /** Lets pass what may now, in turns, and sets the timer for what is next. */
  #dispatch(): void {
    this.#leak();
    for (;;) {
      const kind = [this.#turn, OTHER[this.#turn]].find(
        (each) => this.#waiting[each].length > 0 && this.#delay(each) === 0,
      );
      const queues = kind && this.#waiting[kind].shift();
      if (kind === undefined || queues === undefined) break;
      const waiter = dequeue(queues[kind]);
      if (queues[kind].first !== undefined) this.#waiting[kind].push(queues);
      this.#turn = OTHER[kind];
      if (waiter === undefined) continue;
      this.#pour(kind, waiter.bytes);
      waiter.pass();
    }
    this.#arm();
  }

  #arm(): void {
    const waiting = KINDS.filter((kind) => this.#waiting[kind].length > 0);
    const waits = waiting.map((kind) => this.#delay(kind));
    const milliseconds = Math.min(...waits);
    const due = this.#clock.now() + milliseconds;
    // A timer that ends too early is no harm: it is set again.
    if (this.#timer !== undefined && this.#timer.due <= due && waits.length > 0) return;
    this.#timer?.abort.abort();
    this.#timer = undefined;
    if (waits.length === 0) return;
    const timer = { due, abort: new AbortController() };
    this.#timer = timer;
    const wake = () => {
      if (this.#timer !== timer) return;
      this.#timer = undefined;
      this.#dispatch();
    };
    this.#clock.sleep(milliseconds, timer.abort.signal).then(wake, wake);
  }

  #leak(): void {
    const now = this.#clock.now();
    for (const name of BUCKET_NAMES) leak(this.#buckets[name], this.#limits[name], now);
  }

  #delay(kind: LimitedKind): number {
    let longest = 0;
    for (const name of BUCKETS_OF[kind]) longest = Math.max(longest, delay(this.#buckets[name], this.#limits[name]));
    return longest;
  }

  #pour(kind: LimitedKind, bytes: number): void {
    const { iopsSize } = this.#limits;
    const requests = iopsSize > 0 ? Math.max(1, bytes / iopsSize) : 1;
    for (const name of BUCKETS_OF[kind]) {
      pour(this.#buckets[name], this.#limits[name], name.startsWith('bps') ? bytes : requests);
    }
  }
}

class Member implements ThrottleMember {
  readonly group: ThrottleGroup;
  readonly #queues: Queues = {
    read: { first: undefined, last: undefined },
    write: { first: undefined, last: undefined },
  };
  #disabled = 0;
  #left = false;

  constructor(group: ThrottleGroup) {
    this.group = group;
  }

  wait(kind: LimitedKind, bytes: number): Promise<void> | undefined {
    if (this.#left) return undefined;
    if (this.#disabled === 0) return this.group.admit(kind, bytes, this.#queues);
    this.group.count(kind, bytes);
    return undefined;
  }

  mayPass(kind: LimitedKind): boolean {
    return this.#left || this.#disabled > 0 || this.group.mayPass(kind);
  }

  count(kind: LimitedKind, bytes: number): void {
    if (!this.#left) this.group.count(kind, bytes);
  }

  disable(): void {
    this.#disabled++;
    if (this.#disabled === 1) this.group.release(this.#queues);
  }

  enable(): void {
    if (this.#disabled > 0) this.#disabled--;
  }

  leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.group.release(this.#queues);
    this.group.remove(this);
  }
}

function limitedKinds(limits: ThrottleLimits): Record<LimitedKind, boolean> {
  const limited = (kind: LimitedKind) => BUCKETS_OF[kind].some((name) => limits[name].average > 0);
  return { read: limited('read'), write: limited('write') };
}

/** What was counted against a limit that is gone does not count when one comes back. */
function forgetUnlimited(bucket: Bucket, average: number, max: number): void {
  if (average === 0) bucket.level = 0;
  if (max === 0) bucket.burstLevel = 0;
}

function enqueue(queue: Queue, waiter: Waiter): void {
  if (queue.last === undefined) queue.first = waiter;
  else queue.last.next = waiter;
  queue.last = waiter;
}

function dequeue(queue: Queue): Waiter | undefined {
  const { first } = queue;
  if (first === undefined) return undefined;
  queue.first = first.next;
  if (queue.first === undefined) queue.last = undefined;
  return first;
}
