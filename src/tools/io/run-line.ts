/** One line: its command is found, checked and run (T-IO-4 to T-IO-6). */
import { Call, findCommand, type IoCommand, splitLine, usageLine } from './command.ts';
import { CommandFailure } from './failure.ts';
import type { Session } from './session.ts';

/** True: it worked, or the line is empty. A promise only where it takes waiting. */
export function runLine(session: Session, line: string): boolean | Promise<boolean> {
  const [name, ...words] = splitLine(line);
  if (name === undefined) return true;
  const { messages } = session.context;
  const command = findCommand(session.commands, name);
  if (command === undefined) {
    messages.raw(`command "${name}" not found\n`);
    return false;
  }
  if (command.withoutImage !== true && !session.hasImage) {
    messages.raw("no file open, try 'help open'\n");
    return false;
  }
  if (words.length < command.min || words.length > (command.max ?? Number.POSITIVE_INFINITY)) {
    messages.raw(`bad argument count ${words.length} to ${name}, expected ${countText(command)} arguments\n`);
    return false;
  }
  const call = new Call(command, name, words);
  try {
    const result = command.writes === true ? runWriting(session, call) : command.run(session, call);
    if (result === undefined) return true;
    return result.then(
      () => true,
      (error) => failed(session, command, error),
    );
  } catch (error) {
    return failed(session, command, error);
  }
}

function runWriting(session: Session, call: Call): void | Promise<void> {
  const { command } = call;
  if (session.disk.writable) return command.run(session, call);
  return session.holdWritable(true).then(() => command.run(session, call));
}

function countText({ min, max }: IoCommand): string {
  if (max === undefined) return `at least ${min}`;
  return min === max ? `${min}` : `between ${min} and ${max}`;
}

function failed(session: Session, command: IoCommand, error: unknown): false {
  session.explain(error);
  if (error instanceof CommandFailure && error.details.usage === true) session.line(usageLine(command));
  return false;
}
