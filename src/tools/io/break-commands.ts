/** Breakpoints of blkdebug: `break`, `remove_break`, `resume`, `wait_break` (T-BRK-1, T-BRK-2). */
import { isSuspended, removeBreakpoint, resumeBreakpoint, setBreakpoint } from '../../core/debug.ts';
import { asBlockError, errorText } from '../../core/errors.ts';
import type { IoCommand } from './command.ts';
import { refuse } from './failure.ts';

export const breakCommand: IoCommand = {
  name: 'break',
  min: 2,
  max: 2,
  usage: 'event tag',
  summary: 'sets a breakpoint on event and tags the stopped request as tag',
  run: ({ disk }, { words: [event = '', tag = ''] }) =>
    attempt('Could not set breakpoint', () => setBreakpoint(disk.node, event, tag)),
};

export const removeBreakCommand: IoCommand = {
  name: 'remove_break',
  min: 1,
  max: 1,
  usage: 'tag',
  summary: 'remove a breakpoint by tag',
  run: ({ disk }, { words: [tag = ''] }) =>
    attempt(`Could not remove breakpoint ${tag}`, () => removeBreakpoint(disk.node, tag)),
};

export const resumeCommand: IoCommand = {
  name: 'resume',
  min: 1,
  max: 1,
  usage: 'tag',
  summary: 'resumes the request tagged as tag',
  run: ({ disk }, { words: [tag = ''] }) => attempt('Could not resume request', () => resumeBreakpoint(disk.node, tag)),
};

export const waitBreakCommand: IoCommand = {
  name: 'wait_break',
  min: 1,
  max: 1,
  usage: 'tag',
  summary: 'waits for the suspension of a request',
  async run(session, { words: [tag = ''] }) {
    while (!isSuspended(session.disk.node, tag)) {
      // Nothing is left that could be suspended.
      if (!session.busy) refuse(`Could not wait for breakpoint ${tag}: ${errorText('ENOENT')}`);
      await session.whenChanged();
    }
  },
};

function attempt(what: string, work: () => void): void {
  try {
    work();
  } catch (error) {
    refuse(`${what}: ${errorText(asBlockError(error).code)}`);
  }
}
