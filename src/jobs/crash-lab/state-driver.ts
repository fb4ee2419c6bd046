/** Crash states as disks: the base with pieces of the log over it, read from where they are, and what a check writes in memory. */
import type { Disk } from '../../core/disk.ts';
import {
  type DriverNode,
  type DriverSpec,
  defineProtocol,
  type Extent,
  NO_REOPEN_STEP,
  type TruncateOptions,
} from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { Graph } from '../../core/graph.ts';
import { option } from '../../core/options.ts';
import type { PieceMap } from './piece-map.ts';

/** Where states are made of. */
export interface StateSource {
  readonly base: Disk;
  readonly log: Disk;
}

export interface StateContent {
  readonly pieces: PieceMap;
  /** Bytes. */
  readonly length: number;
}

const DRIVER = 'crash-state';
/** Pieces are told as one run up to about so many bytes. */
const STATUS_MAX = 1 << 20;

/** A graph like `graph` that opens crash states besides. */
export class StateGraph {
  readonly #graph: Graph;
  readonly #states = new Map<number, StateContent>();
  #next = 0;

  constructor(graph: Graph, source: StateSource) {
    const driver = defineProtocol<{ readonly state: number }>({
      name: DRIVER,
      summary: 'What a power cut left of a disk',
      options: { state: option.number({ help: 'number of the state', fallback: 0 }) },
      open: async ({ options: { state }, node }) => {
        const content = this.#states.get(state);
        if (content === undefined) throw new BlockError('ENOENT', `There is no crash state ${state}`, { node });
        return new StateNode(source, content).driverNode();
      },
    });
    const drivers: DriverSpec[] = [driver, ...graph.drivers.toReversed()];
    this.#graph = new Graph({ host: graph.host, drivers, openPolicy: graph.openPolicy });
  }

  /** A disk of `format` in the state, which can be written: what is written is forgotten when it is closed. Throws BlockError. */
  async open(content: StateContent, format: string): Promise<Disk> {
    const state = this.#next++;
    this.#states.set(state, { pieces: content.pieces.fork(), length: content.length });
    try {
      return await this.#graph.open({ driver: format, file: { driver: DRIVER, state } }, { writable: true });
    } finally {
      this.#states.delete(state);
    }
  }
}

/** Reads of a state as it is, without a node. */
export function readState(
  source: StateSource,
  content: StateContent,
  offset: number,
  target: Uint8Array,
): Promise<void> {
  return new StateNode(source, content).read(offset, target);
}

class StateNode {
  readonly #source: StateSource;
  readonly #pieces: PieceMap;
  #length: number;

  constructor(source: StateSource, { pieces, length }: StateContent) {
    this.#source = source;
    this.#pieces = pieces;
    this.#length = length;
  }

  driverNode(): DriverNode {
    return {
      length: () => this.#length,
      prepareReopen: async () => NO_REOPEN_STEP,
      read: (offset, target) => this.read(offset, target),
      tryReadNow: (offset, target) => this.#tryReadNow(offset, target),
      write: async (offset, source) => this.#write(offset, source),
      tryWriteNow: (offset, source) => {
        this.#write(offset, source);
        return true;
      },
      writeZeroes: async (offset, length) => this.#zero(offset, length),
      discard: async (offset, length) => this.#zero(offset, length),
      // What is kept in memory has nowhere to go.
      flush: async () => {},
      status: (offset, length) => this.#status(offset, length),
      truncate: async (length, options) => this.#truncate(length, options),
    };
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    const { base, log } = this.#source;
    // Writes may come while this waits: it reads what was there when it began.
    for (const { start, end, piece } of [...this.#pieces.runs(offset, offset + target.length)]) {
      const part = target.subarray(start - offset, end - offset);
      if (piece === undefined) {
        const stored = Math.max(0, Math.min(end, base.length) - start);
        if (stored > 0) await base.read(start, part.subarray(0, stored));
        part.fill(0, stored);
      } else if (piece.kind === 'log') await log.read(piece.at + start - piece.start, part);
      else fillFrom(piece.bytes, piece.at + start - piece.start, part);
    }
  }

  #tryReadNow(offset: number, target: Uint8Array): boolean {
    const { base, log } = this.#source;
    for (const { start, end, piece } of this.#pieces.runs(offset, offset + target.length)) {
      const part = target.subarray(start - offset, end - offset);
      if (piece === undefined) {
        const stored = Math.max(0, Math.min(end, base.length) - start);
        if (stored > 0 && !base.tryReadNow(start, part.subarray(0, stored))) return false;
        part.fill(0, stored);
      } else if (piece.kind === 'log') {
        if (!log.tryReadNow(piece.at + start - piece.start, part)) return false;
      } else fillFrom(piece.bytes, piece.at + start - piece.start, part);
    }
    return true;
  }

  #write(offset: number, source: Uint8Array): void {
    // The caller may use its buffer again.
    const bytes = source.slice();
    this.#pieces.put({ start: offset, end: offset + bytes.length, kind: 'bytes', at: 0, bytes });
  }

  #zero(offset: number, length: number): void {
    this.#pieces.put({ start: offset, end: offset + length, kind: 'zero', at: 0 });
  }

  async #status(offset: number, length: number): Promise<Extent> {
    let kind: 'data' | 'zero' | undefined;
    let known = offset;
    for (const { start, end, piece } of this.#pieces.runs(offset, offset + length)) {
      if (piece === undefined) {
        if (kind !== undefined) break;
        return this.#baseStatus(start, end);
      }
      const own = piece.kind === 'zero' ? 'zero' : 'data';
      kind ??= own;
      if (own !== kind || start - offset >= STATUS_MAX) break;
      known = end;
    }
    return { kind: kind ?? 'data', length: known - offset };
  }

  async #baseStatus(start: number, end: number): Promise<Extent> {
    const { base } = this.#source;
    if (start >= base.length) return { kind: 'zero', length: end - start };
    const found = await base.status(start, Math.min(end, base.length) - start);
    return { kind: found.zero ? 'zero' : 'data', length: found.length };
  }

  #truncate(length: number, { preallocation = 'off' }: TruncateOptions): void {
    if (preallocation !== 'off') throw new BlockError('ENOTSUP', `Unsupported preallocation mode: ${preallocation}`);
    // What is cut off is not there when the disk grows again.
    if (length < this.#length) this.#zero(length, this.#length - length);
    this.#length = length;
  }
}

function fillFrom(bytes: Uint8Array | undefined, at: number, target: Uint8Array): void {
  if (bytes === undefined) target.fill(0);
  else target.set(bytes.subarray(at, at + target.length));
}
