/**
 * Storage that nothing names any more, in quarantine: its counts fall, and it is used again or given back, only when the
 * change that dropped it is durable and no request that may know it is under way (Q-ORD-3).
 */

/** Why storage was given up: what decides whether that is passed on as a discard (Q-DISC-3). */
export type ReleaseCause = 'request' | 'snapshot' | 'other' | 'always' | 'never';

export interface Release {
  readonly offset: number;
  length: number;
  readonly cause: ReleaseCause;
}

/** More of them than this are settled before more come. */
export const RELEASES_MAX = 65536;

export class Releases {
  /** Dropped, maybe not durably yet. */
  #dropped: Release[] = [];
  /** Dropped for good, and to be settled. */
  #durable: Release[] = [];

  get any(): boolean {
    return this.count > 0;
  }

  get count(): number {
    return this.#dropped.length + this.#durable.length;
  }

  /** Whole clusters. */
  add(offset: number, length: number, cause: ReleaseCause): void {
    const last = this.#dropped.at(-1);
    if (last !== undefined && last.offset + last.length === offset && last.cause === cause) last.length += length;
    else this.#dropped.push({ offset, length, cause });
  }

  takeDropped(): Release[] {
    const taken = this.#dropped;
    this.#dropped = [];
    return taken;
  }

  /** The change could not be made durable. */
  putBack(releases: readonly Release[]): void {
    this.#dropped = [...releases, ...this.#dropped];
  }

  addDurable(releases: readonly Release[]): void {
    for (const release of releases) this.#durable.push(release);
  }

  takeDurable(): Release[] {
    const taken = this.#durable;
    this.#durable = [];
    return taken;
  }
}
