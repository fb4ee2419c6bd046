/** Requests that run beside the commands: `aio_read`, `aio_write`, `aio_flush` (T-AIO-1 to T-AIO-3). */
import { newBuffer, requireRange, writeRange, zeroRange } from './access.ts';
import type { IoCommand } from './command.ts';
import { CommandFailure, refuse, wrongUsage } from './failure.ts';
import { lengthsOf, patternOf, sizeOf } from './numbers.ts';
import { readAndTell, vectorReading } from './read-commands.ts';
import type { Session } from './session.ts';
import { DEFAULT_PATTERN, doAndTell, tellsOf } from './write-commands.ts';

/** Ends a command that has done what it should. */
class Injected extends Error {}

export const aioReadCommand: IoCommand = {
  name: 'aio_read',
  min: 2,
  usage: '[-Ciqrv] [-P pattern] off len [len..]',
  summary: 'asynchronously reads a number of bytes',
  letters: 'CiP:qrv',
  details: `
 Begins to read from byte OFF of the image, into several buffers, one for each LEN. What comes of it is told when it
 ends, while other commands wait, at 'aio_flush' or at the end; the command itself does not fail for it.

 Example:
 'aio_read -v 512 1k 1k' - shows 2048 bytes from the second sector on

 -C, -- report on one line, for programs
 -P, -- every byte read must be PATTERN
 -i, -- count an invalid request, and do nothing
 -q, -- no report
 -r, -- accepted: buffers need no registration
 -v, -- show the bytes`,
  run: (session, call) =>
    unlessInjected(() => {
      const reading = vectorReading(call, { i: () => inject(session, 'read') });
      startRequest(session, async () => {
        const { text } = await readAndTell(session, 'readv', reading);
        return [text.head, ...text.rows, text.tail].join('');
      });
    }),
};

export const aioWriteCommand: IoCommand = {
  name: 'aio_write',
  min: 2,
  writes: true,
  usage: '[-Cfiqruz] [-P pattern] off len [len..]',
  summary: 'asynchronously writes a number of bytes',
  letters: 'CfiP:qruz',
  details: `
 Begins to write from byte OFF of the image on, from several buffers, one for each LEN: 0xcd, unless told otherwise.
 What comes of it is told when it ends, while other commands wait, at 'aio_flush' or at the end; the command itself does
 not fail for it.

 Example:
 'aio_write 512 1k 1k' - fills 2048 bytes from the second sector on

 -P, -- write this byte
 -C, -- report on one line, for programs
 -f, -- durable when it is done (force unit access)
 -i, -- count an invalid request, and do nothing
 -q, -- no report
 -r, -- accepted: buffers need no registration
 -u, -- with -z: storage may be given back
 -z, -- write zeroes, without data`,
  run: (session, call) =>
    unlessInjected(() => {
      let pattern = DEFAULT_PATTERN;
      const given = call.read({
        P: (value) => {
          pattern = patternOf(value);
        },
        i: () => inject(session, 'write'),
      });
      const [offsetText = '', ...lengthTexts] = given.operands;
      if (lengthTexts.length === 0) wrongUsage();
      if (given.has('z') && lengthTexts.length > 1) refuse('-z supports only a single length parameter');
      if (given.has('u') && !given.has('z')) refuse('-u requires -z to be specified');
      if (given.has('z') && given.has('r')) refuse('cannot combine zero write with registered I/O buffer');
      const offset = sizeOf(offsetText);
      const lengths = given.has('z') ? lengthTexts.map(sizeOf) : lengthsOf(lengthTexts);
      const length = lengths.reduce((sum, each) => sum + each, 0);
      const flags = { fua: given.has('f'), unmap: given.has('u') };
      startRequest(session, () =>
        doAndTell(session, 'aio_write', tellsOf(given, 'wrote', offset, length), async () => {
          requireRange(session.disk, offset, length);
          if (given.has('z')) return zeroRange(session.disk, offset, length, flags);
          await writeRange(session.disk, offset, newBuffer(length, pattern), { fua: flags.fua });
        }),
      );
    }),
};

export const aioFlushCommand: IoCommand = {
  name: 'aio_flush',
  min: 0,
  max: 0,
  summary: 'completes all outstanding aio requests',
  details: `
 Waits until all requests of aio_read and aio_write have ended. What is suspended at a breakpoint goes on.`,
  run: (session) => session.settle(),
};

/** Counts a request that could not even begin; what options say behind it is not looked at (T-AIO-2). */
function inject(session: Session, kind: 'read' | 'write'): never {
  session.line(`injecting invalid ${kind} request`);
  throw new Injected();
}

function unlessInjected(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof Injected)) throw error;
  }
}

/** Begins at once, and prints when it ends. */
function startRequest(session: Session, work: () => Promise<string>): void {
  session.background(
    work().then(
      (text) => session.notice(text),
      (error) => {
        if (!(error instanceof CommandFailure)) throw error;
        session.notice(`${error.details.line}\n`);
      },
    ),
  );
}
