/** What the crash lab found, in words. */

import type { CrashFinding, CrashReport } from './crash-lab.ts';
import type { Change } from './crash-log.ts';
import type { Kept } from './outcomes.ts';
import { keptRanges } from './outcomes.ts';

/** A change of the disk that a power cut took, or took parts of. Bytes. */
export interface LostChange {
  /** Number of its entry in the log. */
  readonly entry: number;
  readonly kind: 'write' | 'discard';
  readonly offset: number;
  readonly length: number;
  /** The parts that are lost; all of it: one that is the whole. */
  readonly parts: readonly { readonly offset: number; readonly length: number }[];
}

export function lostChanges(changes: readonly Change[], kept: readonly Kept[], atomic: number): LostChange[] {
  return changes.flatMap((change, i) => {
    const left = kept[i] ?? false;
    if (left === true) return [];
    const { entry, kind, offset, length } = change;
    const parts: { offset: number; length: number }[] = [];
    let at = offset;
    const lose = (end: number) => {
      if (end > at) parts.push({ offset: at, length: end - at });
    };
    for (const { start, end } of keptRanges(change, left, atomic)) {
      lose(start);
      at = end;
    }
    lose(offset + length);
    return [{ entry, kind, offset, length, parts }];
  });
}

/** Parts that are named one by one. */
const PARTS_SHOWN = 6;

/** One line, e.g. `write of 4096 bytes at 8192 (entry 3), of it: 512 at 8704`. */
function describeLost({ entry, kind, offset, length, parts }: LostChange): string {
  const whole = `${kind} of ${length} bytes at ${offset} (entry ${entry})`;
  if (parts.length === 1 && parts[0]?.length === length) return whole;
  const shown = parts.slice(0, PARTS_SHOWN).map((part) => `${part.length} at ${part.offset}`);
  const more = parts.length > PARTS_SHOWN ? ` and ${parts.length - PARTS_SHOWN} more parts` : '';
  return `${whole}, of it: ${shown.join(', ')}${more}`;
}

/** Several lines on a state that failed. */
export function describeFinding(finding: CrashFinding): string {
  const { cut, marks, lost, unflushed, minimal, cause } = finding;
  const mark = marks.at(-1);
  const entries = cut === 1 ? '1 entry' : `${cut} entries`;
  const where = `Power cut after ${entries} of the log${mark === undefined ? '' : `, after mark '${mark}'`}`;
  const lines =
    lost.length === 0
      ? [`${where}, with nothing lost`]
      : [
          `${where}; of ${unflushed} changes since the last flush ${lost.length === 1 ? 'one is' : `${lost.length} are`} lost${minimal ? '' : ' (it may take fewer)'}:`,
          ...lost.map((each) => `  ${describeLost(each)}`),
        ];
  return [...lines, `fails: ${cause instanceof Error ? cause.message : String(cause)}`].join('\n');
}

/** One line on what was tried. */
export function describeReport({ epochs, changes, tried, failed, exhaustive, seed, atomic }: CrashReport): string {
  const states = `${count(tried, 'state')} of ${count(changes, 'change')} in ${count(epochs, 'epoch')}`;
  const how = exhaustive ? 'all there are' : `chosen by seed ${seed}`;
  return `${states} tried, ${how} (atomic ${atomic}): ${failed === 0 ? 'all survive' : `${failed} failed`}`;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}
