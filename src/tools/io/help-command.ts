/** `help` (T-IO-7). */
import { findCommand, type IoCommand, usageLine } from './command.ts';
import { refuse } from './failure.ts';

export const helpCommand: IoCommand = {
  name: 'help',
  alias: '?',
  min: 0,
  max: 1,
  withoutImage: true,
  usage: '[command]',
  summary: 'help for one or all commands',
  run(session, { words: [name] }) {
    if (name === undefined) {
      for (const command of session.commands) session.line(usageLine(command));
      session.print("\nUse 'help commandname' for extended help.\n");
      return;
    }
    const command = findCommand(session.commands, name) ?? refuse(`command ${name} not found`);
    session.line(usageLine(command, name));
    if (command.details !== undefined) session.print(`${command.details}\n\n`);
  },
};
