/** Writing: `write`, `writev` and `discard` (T-WRITE-1, T-WRITE-2, T-VEC-1). */
import { closeSync, openSync, readSync } from 'node:fs';
import { codeOf, errorText } from '../../core/errors.ts';
import { discardRange, newBuffer, requireRange, writeRange, zeroRange } from './access.ts';
import type { Call, Given, IoCommand } from './command.ts';
import { CommandFailure, refuse, wrongUsage } from './failure.ts';
import { lengthOf, lengthsOf, patternOf, REQUEST_MAX, requireSectors, sizeOf } from './numbers.ts';
import { reportText, type Verb } from './report.ts';
import type { Session } from './session.ts';

/** What buffers hold unless a pattern is given. */
export const DEFAULT_PATTERN = 0xcd;

export const writeCommand: IoCommand = {
  name: 'write',
  alias: 'w',
  min: 2,
  writes: true,
  usage: '[-bcCfnqruz] [-P pattern | -s source_file] off len',
  summary: 'writes a number of bytes at a specified offset',
  letters: 'bcCfnpP:qrs:uz',
  details: `
 Writes LEN bytes from byte OFF of the image on: 0xcd, unless told otherwise. Sizes may have a suffix: k, M, G.

 Example:
 'write -P 7 512 1k' - fills 1024 bytes from the second sector on with 7

 -b, -- the saved state of a machine instead of the disk
 -c, -- compressed
 -C, -- report on one line, for programs
 -f, -- durable when it is done (force unit access)
 -n, -- with -z: fail where zeroes would have to be written as data
 -p, -- accepted, and ignored
 -P, -- write this byte
 -q, -- no report
 -r, -- accepted: buffers need no registration
 -s, -- write what is in the file, over and over
 -u, -- with -z: storage may be given back
 -z, -- write zeroes, without data`,
  run: writeOnce,
};

async function writeOnce(session: Session, call: Call): Promise<void> {
  const [given, pattern, source] = readWriteOptions(call);
  if (given.operands.length !== 2) wrongUsage();
  refuseCombinations(given, source);
  const [offsetText = '', lengthText = ''] = given.operands;
  const offset = sizeOf(offsetText);
  const length = sizeOf(lengthText);
  if (length > REQUEST_MAX && !given.has('n')) {
    refuse(`length cannot exceed ${REQUEST_MAX} without -n, given ${lengthText}`);
  }
  if (given.has('b') || given.has('c')) {
    requireSectors(offset, 'offset');
    requireSectors(length, 'count');
  }
  const content = source === undefined ? undefined : readSource(source, length);
  const flags = { fua: given.has('f'), unmap: given.has('u'), noFallback: given.has('n') };
  await perform(session, 'write', tellsOf(given, 'wrote', offset, length), async () => {
    if (!given.has('b')) requireRange(session.disk, offset, length);
    if (given.has('z')) return zeroRange(session.disk, offset, length, flags);
    const buffer = content === undefined ? newBuffer(length, pattern ?? DEFAULT_PATTERN) : repeated(content, length);
    if (given.has('b')) return session.disk.snapshots.vmState.write(offset, buffer);
    await writeRange(session.disk, offset, buffer, { fua: flags.fua, compressed: given.has('c') });
  });
}

function readWriteOptions(call: Call): [given: Given, pattern: number | undefined, source: string | undefined] {
  let pattern: number | undefined;
  let source: string | undefined;
  const given = call.read({
    P: (value) => {
      pattern = patternOf(value);
    },
    s: (value) => {
      source = value;
    },
  });
  return [given, pattern, source];
}

/** In this order. */
function refuseCombinations(given: Given, source: string | undefined): void {
  if (given.has('b') && given.has('z')) refuse('-b and -z cannot be specified at the same time');
  if (given.has('f') && (given.has('b') || given.has('c'))) {
    refuse('-f and -b or -c cannot be specified at the same time');
  }
  if (given.has('n') && !given.has('z')) refuse('-n requires -z to be specified');
  if (given.has('u') && !given.has('z')) refuse('-u requires -z to be specified');
  const fills = [given.has('z'), given.has('P'), source !== undefined].filter((one) => one).length;
  if (fills > 1) refuse('Only one of -z, -P, and -s can be specified at the same time');
  if (given.has('z') && given.has('r')) refuse('cannot combine zero write with registered I/O buffer');
}

/** The first bytes of a file, as many as are needed of it. */
function readSource(filename: string, length: number): Uint8Array {
  const complain = (text: string): never => {
    throw new CommandFailure({ complaint: `${filename}: ${text}` });
  };
  try {
    const descriptor = openSync(filename, 'r');
    try {
      const buffer = newBuffer(length, 0);
      let filled = 0;
      while (filled < length) {
        const bytes = readSync(descriptor, buffer, filled, length - filled, null);
        if (bytes === 0) break;
        filled += bytes;
      }
      return filled === 0 ? complain('file is empty') : buffer.subarray(0, filled);
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    if (error instanceof CommandFailure) throw error;
    return complain(errorText(codeOf(error)));
  }
}

function repeated(content: Uint8Array, length: number): Uint8Array {
  const buffer = newBuffer(length, 0);
  for (let at = 0; at < length; at += content.length) buffer.set(content.subarray(0, length - at), at);
  return buffer;
}

export const writevCommand: IoCommand = {
  name: 'writev',
  min: 2,
  writes: true,
  usage: '[-Cfqr] [-P pattern] off len [len..]',
  summary: 'writes a number of bytes at a specified offset',
  letters: 'CfP:qr',
  details: `
 Writes from byte OFF of the image on, from several buffers, one for each LEN: 0xcd, unless told otherwise.

 Example:
 'writev -P 7 512 1k 1k' - fills 2048 bytes from the second sector on with 7

 -C, -- report on one line, for programs
 -f, -- durable when it is done (force unit access)
 -P, -- write this byte
 -q, -- no report
 -r, -- accepted: buffers need no registration`,
  run(session, call) {
    const [given, pattern] = readWriteOptions(call);
    const [offsetText = '', ...lengthTexts] = given.operands;
    if (lengthTexts.length === 0) wrongUsage();
    const offset = sizeOf(offsetText);
    const length = lengthsOf(lengthTexts).reduce((sum, each) => sum + each, 0);
    return perform(session, 'writev', tellsOf(given, 'wrote', offset, length), async () => {
      requireRange(session.disk, offset, length);
      const buffer = newBuffer(length, pattern ?? DEFAULT_PATTERN);
      await writeRange(session.disk, offset, buffer, { fua: given.has('f') });
    });
  },
};

export const discardCommand: IoCommand = {
  name: 'discard',
  alias: 'd',
  min: 2,
  writes: true,
  usage: '[-Cq] off len',
  summary: 'discards a number of bytes at a specified offset',
  letters: 'Cq',
  details: `
 Says that LEN bytes from byte OFF of the image on are no longer needed.

 Example:
 'discard 1M 64k' - gives 64 KiB back, where the image can

 -C, -- report on one line, for programs
 -q, -- no report`,
  run(session, call) {
    const given = call.read();
    const [offsetText = '', lengthText = ''] = given.operands;
    if (given.operands.length !== 2) wrongUsage();
    const offset = sizeOf(offsetText);
    const length = lengthOf(lengthText);
    return perform(session, 'discard', tellsOf(given, 'discard', offset, length), () =>
      discardRange(session.disk, offset, length),
    );
  },
};

/** What is said of a request that succeeds. */
export interface Telling {
  readonly verb: Verb;
  readonly offset: number;
  readonly length: number;
  readonly quiet: boolean;
  readonly machine: boolean;
}

export function tellsOf(given: Given, verb: Verb, offset: number, length: number): Telling {
  return { verb, offset, length, quiet: given.has('q'), machine: given.has('C') };
}

async function perform(session: Session, name: string, telling: Telling, work: () => Promise<void>): Promise<void> {
  session.print(await doAndTell(session, name, telling, work));
}

/** Does it, and returns what is to be printed. Throws CommandFailure where it fails. */
export async function doAndTell(
  session: Session,
  name: string,
  { quiet, ...transfer }: Telling,
  work: () => Promise<void>,
): Promise<string> {
  const started = performance.now();
  try {
    await work();
  } catch (error) {
    throw error instanceof CommandFailure ? error : session.requestFailed(name, error);
  }
  const milliseconds = performance.now() - started;
  return quiet ? '' : reportText({ ...transfer, milliseconds });
}
