/** Reading: `read` and `readv` (T-READ-1, T-VEC-1). */
import { newBuffer, readRange, requireRange } from './access.ts';
import type { Call, IoCommand } from './command.ts';
import { CommandFailure, refuse, wrongUsage } from './failure.ts';
import { lengthOf, lengthsOf, patternOf, requireSectors, sizeOf } from './numbers.ts';
import { dumpRows, reportText } from './report.ts';
import type { Session } from './session.ts';

/** What is to be done with what was read. */
export interface Reading {
  readonly offset: number;
  readonly length: number;
  /** Every byte of `part` is to be this. */
  readonly pattern: number | undefined;
  /** Of the bytes read; absent: all. */
  readonly part?: { readonly start: number; readonly length: number };
  /** Of the machine's state beside the disk. */
  readonly vmState?: boolean;
  readonly dump: boolean;
  readonly quiet: boolean;
  readonly machine: boolean;
}

export const readCommand: IoCommand = {
  name: 'read',
  alias: 'r',
  min: 2,
  usage: '[-abCqrv] [-P pattern [-s off] [-l len]] off len',
  summary: 'reads a number of bytes at a specified offset',
  letters: 'bCl:pP:qrs:v',
  details: `
 Reads LEN bytes from byte OFF of the image. Sizes may have a suffix: k, M, G.

 Example:
 'read -v 512 1k' - shows 1024 bytes from the second sector on

 -b, -- the saved state of a machine instead of the disk
 -C, -- report on one line, for programs
 -P, -- every byte read must be PATTERN, else the command fails
 -s, -- with -P: look only at what is OFF bytes behind the start
 -l, -- with -P: look only at LEN bytes
 -p, -- accepted, and ignored
 -q, -- no report
 -r, -- accepted: buffers need no registration
 -v, -- show the bytes`,
  run(session, call) {
    let start: number | undefined;
    let checked: number | undefined;
    const { pattern, given, flags } = readFlags(call, {
      l: (value) => {
        checked = lengthOf(value);
      },
      s: (value) => {
        start = sizeOf(value);
      },
    });
    const [offsetText = '', lengthText = '', more] = given.operands;
    if (given.operands.length < 2 || more !== undefined) wrongUsage();
    const offset = sizeOf(offsetText);
    const length = lengthOf(lengthText);
    if (pattern === undefined && (start !== undefined || checked !== undefined)) wrongUsage();
    const part = { start: start ?? 0, length: checked ?? length - (start ?? 0) };
    if (part.length < 0 || part.start + part.length > length) {
      refuse('pattern verification range exceeds end of read data');
    }
    if (given.has('b')) {
      requireSectors(offset, 'offset');
      requireSectors(length, 'count');
    }
    return perform(session, 'read', { offset, length, pattern, part, vmState: given.has('b'), ...flags });
  },
};

export const readvCommand: IoCommand = {
  name: 'readv',
  min: 2,
  usage: '[-Cqrv] [-P pattern] off len [len..]',
  summary: 'reads a number of bytes at a specified offset',
  letters: 'CP:qrv',
  details: `
 Reads from byte OFF of the image into several buffers, one for each LEN, one behind the other.

 Example:
 'readv -v 512 1k 1k' - shows 2048 bytes from the second sector on

 -C, -- report on one line, for programs
 -P, -- every byte read must be PATTERN, else the command fails
 -q, -- no report
 -r, -- accepted: buffers need no registration
 -v, -- show the bytes`,
  run: (session, call) => perform(session, 'readv', vectorReading(call)),
};

/** What `readv` and `aio_read` read. */
export function vectorReading(call: Call, handlers: Parameters<Call['read']>[0] = {}): Reading {
  const { pattern, given, flags } = readFlags(call, handlers);
  const [offsetText = '', ...lengthTexts] = given.operands;
  if (lengthTexts.length === 0) wrongUsage();
  const offset = sizeOf(offsetText);
  const length = lengthsOf(lengthTexts).reduce((sum, each) => sum + each, 0);
  return { offset, length, pattern, ...flags };
}

function readFlags(call: Call, handlers: Parameters<Call['read']>[0]) {
  let pattern: number | undefined;
  const given = call.read({
    ...handlers,
    P: (value) => {
      pattern = patternOf(value);
    },
  });
  return { pattern, given, flags: { dump: given.has('v'), quiet: given.has('q'), machine: given.has('C') } };
}

async function perform(session: Session, name: string, reading: Reading): Promise<void> {
  const { text, matches } = await readAndTell(session, name, reading);
  session.print(text.head);
  for (const row of text.rows) session.print(row);
  session.print(text.tail);
  if (!matches) throw new CommandFailure();
}

/** What a read that succeeded prints, in this order. */
export interface ReadText {
  readonly head: string;
  readonly rows: Iterable<string>;
  readonly tail: string;
}

/** Reads, and says what is to be printed. Throws CommandFailure where reading fails. */
export async function readAndTell(
  session: Session,
  name: string,
  { offset, length, pattern, part = { start: 0, length }, vmState, dump, quiet, machine }: Reading,
): Promise<{ text: ReadText; matches: boolean }> {
  const started = performance.now();
  let buffer: Uint8Array;
  try {
    if (!vmState) requireRange(session.disk, offset, length);
    buffer = newBuffer(length, 0);
    if (vmState) await session.disk.snapshots.vmState.read(offset, buffer);
    else await readRange(session.disk, offset, buffer);
  } catch (error) {
    throw session.requestFailed(name, error);
  }
  const milliseconds = performance.now() - started;
  const end = part.start + part.length;
  const matches = pattern === undefined || isFilled(buffer.subarray(part.start, end), pattern);
  const head = matches ? '' : `Pattern verification failed at offset ${offset + part.start}, ${part.length} bytes\n`;
  const tail = quiet ? '' : reportText({ verb: 'read', offset, length, milliseconds, machine });
  return { text: { head, rows: dump && !quiet ? dumpRows(buffer, offset) : [], tail }, matches };
}

/** Where all bytes equal their neighbours, the first tells of all. */
function isFilled(bytes: Uint8Array, pattern: number): boolean {
  if (bytes.length === 0) return true;
  return bytes[0] === pattern && Buffer.compare(bytes.subarray(0, -1), bytes.subarray(1)) === 0;
}
