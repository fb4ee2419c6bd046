/** Requests under way on one node: which must wait for which, and when the node is idle. */

/** A request that is under way: half-open byte range, and whether it must not run beside overlapping ones. */
export interface TrackedRequest {
  offset: number;
  end: number;
  readonly changes: boolean;
  serialising: boolean;
  readonly sequence: number;
}

export class RequestTracker {
  readonly #inFlight: TrackedRequest[] = [];
  #sequence = 0;
  #serialising = 0;
  /** Requests that are suspended at breakpoints, here or below. */
  #loosened = 0;
  /** Resolved whenever a request ends or is suspended; made only when someone waits. */
  #ended: { promise: Promise<void>; resolve: () => void } | undefined;

  get idle(): boolean {
    return this.#inFlight.length === 0;
  }

  begin(offset: number, length: number, changes: boolean): TrackedRequest {
    const request = { offset, end: offset + length, changes, serialising: false, sequence: this.#sequence++ };
    this.#inFlight.push(request);
    return request;
  }

  /** From now on `request` covers at least the given range and runs beside nothing that overlaps it. */
  serialise(request: TrackedRequest, offset: number, end: number): void {
    request.offset = Math.min(request.offset, offset);
    request.end = Math.max(request.end, end);
    if (!request.serialising) {
      request.serialising = true;
      this.#serialising++;
    }
  }

  end(request: TrackedRequest): void {
    const index = this.#inFlight.indexOf(request);
    const last = this.#inFlight.pop();
    if (last !== undefined && last !== request) this.#inFlight[index] = last;
    if (request.serialising) this.#serialising--;
    this.#wake();
  }

  /** Until {@link tighten}, changes wait for serialising requests only. Nests. */
  loosen(): void {
    this.#loosened++;
    this.#wake();
  }

  tighten(): void {
    this.#loosened--;
  }

  #wake(): void {
    const ended = this.#ended;
    this.#ended = undefined;
    ended?.resolve();
  }

  /** Whether `request` must wait for an earlier one: they overlap, and either of them serialises or both change something (N-73). */
  mustWait(request: TrackedRequest): boolean {
    const ordered = request.changes && this.#loosened === 0;
    if (this.#inFlight.length === 1 || (this.#serialising === 0 && !ordered)) return false;
    for (const other of this.#inFlight) {
      if (other.sequence >= request.sequence || other.offset >= request.end || request.offset >= other.end) continue;
      if (other.serialising || request.serialising || (ordered && other.changes)) return true;
    }
    return false;
  }

  /** Waits until no earlier request stands in the way. Waiting only for earlier ones excludes deadlock. */
  async wait(request: TrackedRequest): Promise<void> {
    while (this.mustWait(request)) await this.#nextEnd();
  }

  /** Whether an immediate request on the range would overlap a change under way (or, if it changes, anything). */
  overlaps(offset: number, length: number, changes: boolean): boolean {
    const end = offset + length;
    for (const other of this.#inFlight) {
      if ((changes || other.changes) && other.offset < end && offset < other.end) return true;
    }
    return false;
  }

  /** Counts `work` as a request without a range, that drains and closing wait for. */
  async track<T>(work: () => Promise<T>): Promise<T> {
    const request = this.begin(0, 0, false);
    try {
      return await work();
    } finally {
      this.end(request);
    }
  }

  /** Resolves when all that is under way now has ended, whatever has begun meanwhile. */
  async whenPassed(): Promise<void> {
    const next = this.#sequence;
    while (this.#inFlight.some(({ sequence }) => sequence < next)) await this.#nextEnd();
  }

  /** Resolves when nothing is under way. */
  async whenIdle(): Promise<void> {
    while (this.#inFlight.length > 0) await this.#nextEnd();
  }

  #nextEnd(): Promise<void> {
    if (this.#ended === undefined) {
      let resolve = () => {};
      const promise = new Promise<void>((done) => {
        resolve = done;
      });
      this.#ended = { promise, resolve };
    }
    return this.#ended.promise;
  }
}
