/** Rows of `map` (T-MAP-2, T-MAP-3). */
import type { MapEntry } from '../../jobs/map.ts';

/** One JSON object; no blank but these, no line breaks. */
export function mapJson({ start, length, depth, present, zero, data, offset }: MapEntry): string {
  const flags = `"depth": ${depth}, "present": ${present}, "zero": ${zero}, "data": ${data}`;
  const at = offset === undefined ? '' : `, "offset": ${offset}`;
  return `{ "start": ${start}, "length": ${length}, ${flags}${at}}`;
}

export const MAP_HEADER = mapColumns('Offset', 'Length', 'Mapped to', 'File');

/** The row of an entry with data that is plainly stored. */
export function mapRow(entry: MapEntry): string {
  return mapColumns(hex(entry.start), hex(entry.length), hex(entry.offset ?? 0), entry.filename ?? '');
}

function mapColumns(start: string, length: string, at: string, filename: string): string {
  return `${start.padEnd(16)}${length.padEnd(16)}${at.padEnd(16)}${filename}\n`;
}

/** As C's `%#x`: zero has no prefix. */
function hex(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}
