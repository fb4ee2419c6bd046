/** What is told when the two sides do not agree (BV-6 to BV-8). */
import { errnoNumber } from '../../core/errno.ts';
import { BlockError, type ErrorCode } from '../../core/errors.ts';

/** How many bytes a window of both sides shows, around the first difference. */
const WINDOW = 64;

/** `done` or the code of the failure. */
export type Outcome = 'done' | ErrorCode;

/** As a system call would return it. */
function returnValue(outcome: Outcome): string {
  return outcome === 'done' ? '0' : `-${errnoNumber(outcome)}`;
}

/** Where the two disks of blkverify differ. */
export interface MismatchDetails {
  readonly node: string;
  readonly operation: 'read' | 'write' | 'zero' | 'truncate' | 'flush' | 'verify';
  /** Of the request, bytes. */
  readonly offset: number;
  readonly length: number;
  /** The request in sectors of 512 bytes: its first, and how many it touches (BV-7). */
  readonly sectorNum: number;
  readonly nbSectors: number;
  readonly test: Outcome;
  readonly raw: Outcome;
  /** First byte that differs, from the disk's start; absent where the results do. */
  readonly firstDifference?: number;
  /** Hexadecimal dumps of both sides around it. */
  readonly window?: string;
}

/** A request that found the two disks of blkverify different. Code EIO. */
export class MismatchError extends BlockError {
  readonly details: MismatchDetails;

  constructor(details: MismatchDetails) {
    super('EIO', mismatchText(details), { node: details.node, hint: details.window });
    this.details = details;
  }
}

/** `blkverify: read offset=0 bytes=512 contents mismatch at offset 7`. */
export function mismatchText({ operation, offset, length, test, raw, firstDifference }: MismatchDetails): string {
  const what =
    firstDifference === undefined
      ? `return value mismatch ${returnValue(test)} != ${returnValue(raw)}`
      : `contents mismatch at offset ${firstDifference}`;
  return `blkverify: ${operation} offset=${offset} bytes=${length} ${what}`;
}

/** Both sides around a difference, which is at `at` of buffers that begin at byte `offset` of the disk. */
export function mismatchWindow(test: Uint8Array, raw: Uint8Array, at: number, offset: number): string {
  const start = Math.max(0, at - (at % 16) - 16);
  const end = Math.min(test.length, start + WINDOW);
  const lines: string[] = [];
  for (let line = start; line < end; line += 16) {
    const place = (offset + line).toString(16).padStart(12, '0');
    const stop = Math.min(end, line + 16);
    lines.push(`test ${place}  ${dump(test, line, stop)}`, `raw  ${place}  ${dump(raw, line, stop)}`);
  }
  return lines.join('\n');
}

function dump(bytes: Uint8Array, start: number, end: number): string {
  return Array.from(bytes.subarray(start, end), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
}
