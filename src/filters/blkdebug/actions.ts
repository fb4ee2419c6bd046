/** What happens to a request that a rule or a scenario picks: errors, and the faults that go past QEMU (BD-61, BD-62). */
import type { SeededRandom } from '../../bytes/random.ts';
import { BlockError, type ErrorCode, errorText } from '../../core/errors.ts';
import type { DebugEvent } from './events.ts';
import type { InjectError, IoType } from './rules.ts';

/** What happens to a request that a rule or a scenario picks. */
export type Action =
  /** Fails with `errno`; undefined: goes on as if nothing were. `immediately`: in the same turn of the loop. */
  | { readonly kind: 'error'; readonly errno?: ErrorCode | undefined; readonly immediately?: boolean }
  | { readonly kind: 'delay'; readonly ms: number }
  /** Only the first bytes of a write reach the child; then it fails, or without `errno` succeeds. */
  | { readonly kind: 'torn'; readonly bytes: number; readonly errno?: ErrorCode | undefined }
  /** Bits are flipped in what is read or written; positions count from the request's start. */
  | { readonly kind: 'corrupt'; readonly bits: readonly number[] }
  /** A write lands at another offset. */
  | { readonly kind: 'misdirect'; readonly target: number }
  /** Acknowledged, never done. */
  | { readonly kind: 'drop' }
  /** A write is acknowledged, and done in another order before the next flush. */
  | { readonly kind: 'reorder' };

/** What a scenario sees of a request. */
export interface ScenarioRequest {
  readonly type: IoType;
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
  /** Of a write. Not to be changed. */
  readonly data: Uint8Array | undefined;
  /** The last debug events, oldest first. */
  readonly events: readonly DebugEvent[];
  /** How many requests came before. */
  readonly index: number;
}

/** Asked for each request; undefined: nothing happens to it (BD-62). */
export type Scenario = (request: ScenarioRequest) => Action | undefined | Promise<Action | undefined>;

/** What a rule does, with what it leaves to chance decided. */
export function actionOf(rule: InjectError, length: number, chance: SeededRandom): Action {
  switch (rule.action) {
    case 'error':
      return { kind: 'error', errno: rule.errno, immediately: rule.immediately };
    case 'delay':
      return { kind: 'delay', ms: rule.delayMs + (rule.jitterMs > 0 ? chance.fraction() * rule.jitterMs : 0) };
    case 'torn':
      return { kind: 'torn', bytes: rule.bytes, errno: rule.errno };
    case 'corrupt':
      return { kind: 'corrupt', bits: rule.bits.length > 0 ? rule.bits : [chance.below(Math.max(1, length * 8))] };
    case 'misdirect':
      return { kind: 'misdirect', target: rule.target };
    case 'drop':
    case 'reorder':
      return { kind: rule.action };
  }
}

/** The error of a rule, as the system would word it. */
export function injected(errno: ErrorCode, node: string): BlockError {
  return new BlockError(errno, errorText(errno), { node });
}

/** Flips bits, those behind the end left out. */
export function flip(bytes: Uint8Array, bits: readonly number[]): void {
  for (const bit of bits) {
    const at = Math.floor(bit / 8);
    if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit % 8));
  }
}
