/** Errors on demand: which requests of a simulated host fail, and how. */
import type { ErrorCode } from '../core/errors.ts';

/** What a {@link SimHost} does that can fail. */
export type SimOperation =
  | 'open'
  | 'stat'
  | 'read'
  | 'write'
  | 'flush'
  | 'truncate'
  | 'allocate'
  | 'punchHole'
  | 'zeroRange'
  | 'copyFrom'
  | 'close'
  | 'remove'
  | 'rename'
  | 'list';

/** Which operations of a {@link SimHost} fail, and how. */
export interface Fault {
  readonly operation: SimOperation | readonly SimOperation[];
  readonly code: ErrorCode;
  /** Only requests to this file. */
  readonly path?: string;
  /** Only requests that touch `length` bytes (default: to the end) from here on. */
  readonly offset?: number;
  readonly length?: number;
  /** So many matching requests pass first. Default 0. */
  readonly skip?: number;
  /** So many fail, then all pass again. Default: all fail. */
  readonly times?: number;
}

interface ArmedFault {
  readonly fault: Fault;
  skip: number;
  times: number;
}

export interface FaultRequest {
  readonly operation: SimOperation;
  readonly path: string;
  readonly offset?: number;
  readonly length?: number;
}

function matches({ fault, times }: ArmedFault, request: FaultRequest): boolean {
  const operations = typeof fault.operation === 'string' ? [fault.operation] : fault.operation;
  if (times <= 0 || !operations.includes(request.operation)) return false;
  if (fault.path !== undefined && fault.path !== request.path) return false;
  if (fault.offset === undefined) return true;
  const start = request.offset ?? 0;
  const end = start + (request.length ?? 0);
  return start < fault.offset + (fault.length ?? Number.POSITIVE_INFINITY) && end > fault.offset;
}

/** The faults of a {@link SimHost}. */
export class SimFaults {
  #armed: ArmedFault[] = [];

  /** Arms a fault; the result takes it away again. */
  inject(fault: Fault): () => void {
    const armed = { fault, skip: fault.skip ?? 0, times: fault.times ?? Number.POSITIVE_INFINITY };
    this.#armed.push(armed);
    return () => {
      this.#armed = this.#armed.filter((other) => other !== armed);
    };
  }

  clear(): void {
    this.#armed = [];
  }

  /** Whether `request` would be counted by any fault: then it must not take a way that cannot fail. */
  concerns(request: FaultRequest): boolean {
    return this.#armed.some((armed) => matches(armed, request));
  }

  /** Counts `request`; the code it fails with, if it does. */
  strike(request: FaultRequest): ErrorCode | undefined {
    for (const armed of this.#armed) {
      if (!matches(armed, request)) continue;
      if (armed.skip > 0) armed.skip--;
      else {
        armed.times--;
        return armed.fault.code;
      }
    }
    return undefined;
  }
}
