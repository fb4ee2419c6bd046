/** Snapshots for people (T-SNAP-2). */
import { formatSize } from '../../bytes/size.ts';
import type { SnapshotInfo } from '../../core/driver.ts';

const NANOSECONDS = 1_000_000_000n;

/** A heading and a line for each; nothing at all where there is none. */
export function snapshotLines(snapshots: readonly SnapshotInfo[]): string[] {
  if (snapshots.length === 0) return [];
  const heading = row('ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT');
  return ['Snapshot list:', heading, ...snapshots.map(line)];
}

function line({ id, name, vmStateSize, time, vmClock, instructionCount }: SnapshotInfo): string {
  const count = instructionCount === undefined ? '' : `${instructionCount}`;
  return row(id, name, formatSize(vmStateSize), localTime(time), clockText(vmClock), count);
}

function row(id: string, name: string, size: string, date: string, clock: string, count: string): string {
  return `${padded(id, 9)} ${padded(name, 16)} ${size.padStart(8)}${date.padStart(20)}${clock.padStart(13)}${count.padStart(11)}`;
}

/** Columns are counted in bytes, as C does. */
function padded(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - Buffer.byteLength(text)));
}

function localTime(milliseconds: number): string {
  const date = new Date(milliseconds);
  const day = [two(date.getFullYear()), two(date.getMonth() + 1), two(date.getDate())].join('-');
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`;
}

function clockText(nanoseconds: bigint): string {
  const seconds = nanoseconds / NANOSECONDS;
  const rest = (nanoseconds / 1_000_000n) % 1000n;
  const parts = [seconds / 3600n, (seconds / 60n) % 60n, seconds % 60n].map(two);
  return `${parts.join(':')}.${`${rest}`.padStart(3, '0')}`;
}

function two(value: number | bigint): string {
  return `${value}`.padStart(2, '0');
}
