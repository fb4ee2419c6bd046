/** Rows of `map` (T-MAP-2, T-MAP-3). */
import type { MapEntry } from '../../jobs/map.ts';
import { AsciiText, bytesOf } from './ascii.ts';

/** A listing as it grows. What was added is written now or at the end, which a failure must reach too: earlier rows stay. */
export interface MapListing {
  add(entry: MapEntry): void;
  /** Ends a listing that is complete. */
  close(): void;
  flush(): void;
}

const NEWLINE = bytesOf('\n');
const START = bytesOf('{ "start": ');
const LENGTH = bytesOf(', "length": ');
const DEPTH = bytesOf(', "depth": ');
/** By `present`, `zero` and `data` as bits 2, 1 and 0. */
const FLAGS = Array.from({ length: 8 }, (_, bits) =>
  bytesOf(`, "present": ${(bits & 4) !== 0}, "zero": ${(bits & 2) !== 0}, "data": ${(bits & 1) !== 0}`),
);
const OFFSET = bytesOf(', "offset": ');
const CLOSE = bytesOf('}');
const BETWEEN = bytesOf(',\n');
const NOTHING = bytesOf('');

/** A JSON array, one object a line; no blanks but these (T-MAP-2). */
export function jsonListing(write: (text: Uint8Array) => void): MapListing {
  const text = new AsciiText(write);
  text.put(bytesOf('['));
  let between = NOTHING;
  return {
    add({ start, length, depth, present, zero, data, offset }) {
      text.put(between);
      between = BETWEEN;
      text.put(START);
      text.decimal(start);
      text.put(LENGTH);
      text.decimal(length);
      text.put(DEPTH);
      text.decimal(depth);
      text.put(FLAGS[(present ? 4 : 0) + (zero ? 2 : 0) + (data ? 1 : 0)] ?? NOTHING);
      if (offset !== undefined) {
        text.put(OFFSET);
        text.decimal(offset);
      }
      text.put(CLOSE);
      text.endLine();
    },
    close() {
      text.put(bytesOf(']\n'));
      between = NOTHING;
    },
    flush() {
      // One that is given up says that more was to come.
      text.put(between);
      text.flush();
    },
  };
}

/** Columns of 16; entries with data that is plainly stored (T-MAP-3). */
export function tableListing(write: (text: Uint8Array) => void): MapListing {
  const text = new AsciiText(write);
  text.put(bytesOf(`${'Offset'.padEnd(16)}${'Length'.padEnd(16)}${'Mapped to'.padEnd(16)}File\n`));
  let filename: string | undefined;
  let filenameBytes = NOTHING;
  return {
    add(entry) {
      if (entry.filename !== filename) {
        filename = entry.filename;
        filenameBytes = bytesOf(filename ?? '');
      }
      const row = text.length;
      text.hexadecimal(entry.start);
      text.padTo(row + 16);
      text.hexadecimal(entry.length);
      text.padTo(row + 32);
      text.hexadecimal(entry.offset ?? 0);
      text.padTo(row + 48);
      text.put(filenameBytes);
      text.put(NEWLINE);
      text.endLine();
    },
    close: () => {},
    flush: () => text.flush(),
  };
}
