/** The active L1 table in memory, as it is in the file: a pair of words for each L2 table (Q-MAP-2). */
import { viewOf } from '../../bytes/big-endian.ts';
import { type HostOffset, highWord, isCopied, lowWord, offsetOf } from './tables.ts';

export const L1_ENTRY_BYTES = 8;

export class L1Table {
  readonly offset: HostOffset;
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(offset: HostOffset, bytes: Uint8Array) {
    this.offset = offset;
    this.bytes = bytes;
    this.#view = viewOf(bytes);
  }

  get entries(): number {
    return this.bytes.length / L1_ENTRY_BYTES;
  }

  /** Offset of an L2 table; 0: there is none. An index past the table has none. */
  l2Offset(index: number): HostOffset {
    const at = index * L1_ENTRY_BYTES;
    if (at >= this.bytes.length) return 0;
    return offsetOf(this.#view.getUint32(at), this.#view.getUint32(at + 4));
  }

  /** Whether the L2 table is this table's alone. */
  isCopied(index: number): boolean {
    const at = index * L1_ENTRY_BYTES;
    return at < this.bytes.length && isCopied(this.#view.getUint32(at));
  }

  words(index: number): { high: number; low: number } {
    const at = index * L1_ENTRY_BYTES;
    return { high: this.#view.getUint32(at), low: this.#view.getUint32(at + 4) };
  }

  set(index: number, l2Offset: HostOffset, copied: boolean): void {
    const at = index * L1_ENTRY_BYTES;
    this.#view.setUint32(at, highWord(l2Offset, copied));
    this.#view.setUint32(at + 4, lowWord(l2Offset));
  }
}
