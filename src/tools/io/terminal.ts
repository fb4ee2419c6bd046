/** Lines typed at a terminal: with editing, history and completion. */
import { createInterface } from 'node:readline';
import { EVENTS } from '../../filters/blkdebug/events.ts';
import { endBySignal } from '../signals.ts';
import type { IoCommand } from './command.ts';
import type { LineSource } from './lines.ts';

const HISTORY = 1000;

export function terminalLines(prompt: string, commands: readonly IoCommand[]): LineSource {
  const completer = (line: string) => completions(line, commands);
  const terminal = createInterface({
    input: process.stdin,
    output: process.stdout,
    terminal: true,
    prompt,
    completer,
    historySize: HISTORY,
    removeHistoryDuplicates: true,
  });
  const lines: string[] = [];
  let ended = false;
  let waiting: (() => void) | undefined;
  const wake = () => {
    waiting?.();
    waiting = undefined;
  };
  terminal.on('line', (line) => {
    lines.push(line);
    wake();
  });
  terminal.on('close', () => {
    // What comes next begins a line of its own.
    if (waiting !== undefined) process.stdout.write('\n');
    ended = true;
    wake();
  });
  terminal.on('SIGINT', () => {
    terminal.close();
    void endBySignal('SIGINT');
  });
  return {
    async next() {
      terminal.prompt();
      while (lines.length === 0 && !ended) {
        await new Promise<void>((resolve) => {
          waiting = resolve;
        });
      }
      return lines.shift();
    },
    interrupted() {
      if (waiting !== undefined) terminal.prompt(true);
    },
    close: () => terminal.close(),
  };
}

/** What the last word of a line may become, and that word: names of commands, and of events behind `break` and `fault add`. */
export function completions(line: string, commands: readonly IoCommand[]): [string[], string] {
  const words = line.split(' ');
  const last = words.pop() ?? '';
  const before = words.filter((word) => word !== '').join(' ');
  const candidates = candidatesAfter(before, commands);
  return [candidates.filter((name) => name.startsWith(last)).map((name) => `${name} `), last];
}

function candidatesAfter(before: string, commands: readonly IoCommand[]): readonly string[] {
  if (before === '' || before === 'help') return commands.map(({ name }) => name);
  if (before === 'fault') return ['add', 'list', 'remove'];
  if (before === 'break' || before === 'fault add' || before === 'fault add set-state') return EVENTS;
  return [];
}
