/** Which parts of an open file are stored, found by lseek. */
import { constants } from 'node:os';
import type { HostExtent } from '../core/host.ts';
import type { NodeContext } from './context.ts';
import type { SeekTarget, Syscalls } from './syscalls.ts';

const { ENXIO } = constants.errno;
const NOTHING = { start: 0, end: 0 };

export class FileExtents {
  readonly #fd: number;
  readonly #syscalls: Syscalls;
  #findsHoles: boolean;
  /**
   * The stored run that was found last. To find where a run ends the kernel may walk all of it, so it is not asked for
   * each part. When another process makes a hole meanwhile, "stored" is still a safe answer.
   */
  #stored = NOTHING;
  /** Where the hole that was found last ended and something stored begins; -1: none was. */
  #storedFrom = -1;

  constructor(fd: number, syscalls: Syscalls, findsHoles: boolean) {
    this.#fd = fd;
    this.#syscalls = syscalls;
    this.#findsHoles = findsHoles;
  }

  /** The run at `offset` if no system call is needed to tell. */
  known(offset: number, length: number): HostExtent | undefined {
    if (!this.#findsHoles) return { kind: 'data', length };
    const { start, end } = this.#stored;
    return offset >= start && offset < end ? { kind: 'data', length: Math.min(length, end - offset) } : undefined;
  }

  /** Asks the system at once. */
  now(offset: number, length: number): HostExtent {
    const known = this.known(offset, length);
    if (known !== undefined) return known;
    const data = offset === this.#storedFrom ? offset : this.#syscalls.seek(this.#fd, 'data', offset);
    const hole = this.#holeUpTo(data, offset, length);
    return hole ?? this.#dataUpTo(data < 0 ? data : this.#syscalls.seek(this.#fd, 'hole', offset), offset, length);
  }

  /** Asks in threads: those of `context`, or the pool. */
  async find(offset: number, length: number, context: NodeContext | undefined): Promise<HostExtent> {
    const known = this.known(offset, length);
    if (known !== undefined) return known;
    const seek = (to: SeekTarget) => this.#syscalls.seekIn(context, this.#fd, to, offset);
    const data = offset === this.#storedFrom ? offset : await seek('data');
    const hole = this.#holeUpTo(data, offset, length);
    return hole ?? this.#dataUpTo(data < 0 ? data : await seek('hole'), offset, length);
  }

  /** Storage was freed or cut off. */
  forget(): void {
    this.#stored = NOTHING;
    this.#storedFrom = -1;
  }

  /** What is at `offset`, if the next data are behind it. */
  #holeUpTo(data: number, offset: number, length: number): HostExtent | undefined {
    if (data === -ENXIO) return { kind: 'hole', length };
    if (data <= offset) return undefined;
    this.#storedFrom = data;
    return { kind: 'hole', length: Math.min(length, data - offset) };
  }

  /** What is at `offset`, where there is no hole. */
  #dataUpTo(hole: number, offset: number, length: number): HostExtent {
    if (hole > offset) {
      this.#stored = { start: offset, end: hole };
      return { kind: 'data', length: Math.min(length, hole - offset) };
    }
    // Someone cut the file just now, or the file system cannot tell.
    if (hole < 0 && hole !== -ENXIO) this.#findsHoles = false;
    return { kind: 'data', length };
  }
}
