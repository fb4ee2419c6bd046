/** Messages of a program that must not wait for who reads them, since others wait for the program. */

/** Takes what there is room for now, and returns how many bytes that is. Throws what writing throws. */
export type WriteNow = (bytes: Uint8Array) => number;

/** Time that may be waited for, in milliseconds; replaced in tests. */
export interface Patience {
  now(): number;
  pause(milliseconds: number): void;
}

/** So long what is said at the end may wait for a reader. */
const LAST_WORDS_MS = 1000;
const LOOK_AGAIN_MS = 10;

const cell = new Int32Array(new SharedArrayBuffer(4));
const REAL: Patience = {
  now: () => performance.now(),
  pause: (milliseconds) => void Atomics.wait(cell, 0, 0, milliseconds),
};

/** Keeps one message that there is no room for; further ones are dropped and counted, and the count is told when there is room. */
export class HurriedLog {
  readonly #program: string;
  readonly #writeNow: WriteNow;
  readonly #patience: Patience;
  #rest: Uint8Array = new Uint8Array(0);
  #lost = 0;
  #until = 0;

  /** `program` begins the line that tells of lost messages. */
  constructor(program: string, writeNow: WriteNow, patience = REAL) {
    this.#program = program;
    this.#writeNow = writeNow;
    this.#patience = patience;
  }

  /** Text of whole lines. */
  write(text: string): void {
    if (this.#catchUp()) this.#put(text);
    else this.#lost++;
  }

  /** Nobody waits for the program any more: from now on messages wait for room, for a second in all. */
  beLast(): void {
    this.#until = this.#patience.now() + LAST_WORDS_MS;
    this.#catchUp();
  }

  /** Whether all that was said before is written. */
  #catchUp(): boolean {
    if (!this.#drain()) return false;
    if (this.#lost === 0) return true;
    const were = this.#lost === 1 ? 'message was' : 'messages were';
    const notice = `${this.#program}: warning: ${this.#lost} ${were} dropped, as nobody read them in time\n`;
    this.#lost = 0;
    return this.#put(notice);
  }

  #put(text: string): boolean {
    this.#rest = new TextEncoder().encode(text);
    return this.#drain();
  }

  #drain(): boolean {
    while (this.#rest.length > 0) {
      let taken: number;
      try {
        taken = this.#writeNow(this.#rest);
      } catch {
        // Nobody reads any more.
        taken = this.#rest.length;
      }
      this.#rest = this.#rest.subarray(taken);
      if (taken > 0) continue;
      if (this.#patience.now() >= this.#until) return false;
      this.#patience.pause(LOOK_AGAIN_MS);
    }
    return true;
  }
}
