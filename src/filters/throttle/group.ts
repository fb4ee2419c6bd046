/**
 * A throttle group: limits that its members share. Requests that must wait do so in a queue per member, reads and
 * writes apart; members take turns, and so do reads and writes. A member that sends its next request when the last has
 * ended has none waiting when it passes: its turn is kept for a moment, or members with many requests would get it.
 */
import type { HostClock } from '../../core/host.ts';
import type { IoLimiter, LimitedKind } from '../../core/io-limiter.ts';
import { type Bucket, delay, emptyBucket, leak, pour, slack } from './leaky-bucket.ts';
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
  /** The lower, the earlier is its turn. */
  turn: number;
  /** When the last one passed, milliseconds. */
  passedAt: number;
  /** It came back soon after that. */
  returnsSoon: boolean;
}

/** A member as the group sees it: what waits, by kind. */
type Queues = Readonly<Record<LimitedKind, Queue>>;

const BUCKETS_OF: Readonly<Record<LimitedKind, readonly BucketName[]>> = {
  read: ['bps-total', 'bps-read', 'iops-total', 'iops-read'],
  write: ['bps-total', 'bps-write', 'iops-total', 'iops-write'],
};

/** A turn is kept so long, milliseconds. */
const RETURN_MS = 2;
/** Turns are kept only while no more than this is lost of what the limits allow, milliseconds; less than any bucket holds. */
const LOST_MS = 5;

const KINDS = ['read', 'write'] as const;
const OTHER = { read: 'write', write: 'read' } as const;

/** Limits on I/O that several disks share by taking turns. */
export class ThrottleGroup {
  readonly name: string;
  readonly #clock: HostClock;
  readonly #buckets: Readonly<Record<BucketName, Bucket>>;
  readonly #members = new Set<Member>();
  /** Queues in which requests wait, and empty ones whose turn is kept. */
  readonly #waiting: Readonly<Record<LimitedKind, Set<Queue>>> = { read: new Set(), write: new Set() };
  readonly #kept: Readonly<Record<LimitedKind, Set<Queue>>> = { read: new Set(), write: new Set() };
  #turns = 0;
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
    this.#returned(kind, queues);
    return new Promise((pass) => {
      const queue = queues[kind];
      this.#waiting[kind].add(queue);
      enqueue(queue, { bytes, pass, next: undefined });
      this.#dispatch();
    });
  }

  /** A member has a request again: it has its place in the order if that was kept, else behind all others. */
  #returned(kind: LimitedKind, queues: Queues): void {
    const queue = queues[kind];
    if (queue.first === undefined) {
      queue.returnsSoon = this.#clock.now() - queue.passedAt <= RETURN_MS;
      if (!queue.returnsSoon || !this.#kept[kind].has(queue)) queue.turn = ++this.#turns;
    }
    for (const each of KINDS) this.#kept[each].delete(queues[each]);
  }

  /** For members only: nobody waits, and the limits allow it. */
  mayPass(kind: LimitedKind): boolean {
    if (!this.#limited[kind]) return true;
    if (this.#waiting.read.size > 0 || this.#waiting.write.size > 0) return false;
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
      this.#waiting[kind].delete(queues[kind]);
      this.#kept[kind].delete(queues[kind]);
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
        (each) => this.#waiting[each].size > 0 && this.#wait(each) === 0,
      );
      if (kind === undefined) break;
      this.#turn = OTHER[kind];
      this.#passNext(kind);
    }
    this.#arm();
  }

  #passNext(kind: LimitedKind): void {
    const queue = earliest(this.#waiting[kind]);
    const waiter = queue && dequeue(queue);
    if (queue === undefined || waiter === undefined) return;
    queue.turn = ++this.#turns;
    queue.passedAt = this.#clock.now();
    if (queue.first === undefined) {
      this.#waiting[kind].delete(queue);
      if (queue.returnsSoon) this.#kept[kind].add(queue);
    }
    this.#pour(kind, waiter.bytes);
    waiter.pass();
  }

  /** Milliseconds until one that waits may pass, by the limits and because a turn is kept that is earlier. */
  #wait(kind: LimitedKind): number {
    const wait = this.#delay(kind);
    const kept = this.#kept[kind];
    if (kept.size === 0) return wait;
    const now = this.#clock.now();
    const next = earliest(this.#waiting[kind])?.turn ?? 0;
    let longest = wait;
    for (const queue of kept) {
      const left = queue.passedAt + RETURN_MS - now;
      if (left <= 0) kept.delete(queue);
      else if (queue.turn < next && this.#slack(kind) < LOST_MS) longest = Math.max(longest, left);
    }
    return longest;
  }

  #arm(): void {
    const waiting = KINDS.filter((kind) => this.#waiting[kind].size > 0);
    const waits = waiting.map((kind) => this.#wait(kind));
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

  #slack(kind: LimitedKind): number {
    return Math.min(...BUCKETS_OF[kind].map((name) => slack(this.#buckets[name], this.#limits[name])));
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
  readonly #queues: Queues = { read: emptyQueue(), write: emptyQueue() };
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

function emptyQueue(): Queue {
  return { first: undefined, last: undefined, turn: 0, passedAt: Number.NEGATIVE_INFINITY, returnsSoon: false };
}

function earliest(queues: ReadonlySet<Queue>): Queue | undefined {
  let found: Queue | undefined;
  for (const queue of queues) if (found === undefined || queue.turn < found.turn) found = queue;
  return found;
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
