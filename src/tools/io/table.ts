/** All commands, by name. */
import type { Dialect } from '../dialect.ts';
import { aioFlushCommand, aioReadCommand, aioWriteCommand } from './aio-commands.ts';
import { allocCommand, mapCommand } from './allocation-commands.ts';
import { breakCommand, removeBreakCommand, resumeCommand, waitBreakCommand } from './break-commands.ts';
import type { IoCommand } from './command.ts';
import { faultCommand } from './fault-command.ts';
import { helpCommand } from './help-command.ts';
import { flushCommand, infoCommand, lengthCommand, truncateCommand } from './image-commands.ts';
import { markCommand } from './mark-command.ts';
import { closeCommand, openCommand, reopenCommand } from './open-commands.ts';
import { abortCommand, quitCommand, sigraiseCommand, sleepCommand } from './process-commands.ts';
import { readCommand, readvCommand } from './read-commands.ts';
import { discardCommand, writeCommand, writevCommand } from './write-commands.ts';

const COMMANDS: readonly IoCommand[] = [
  abortCommand,
  aioFlushCommand,
  aioReadCommand,
  aioWriteCommand,
  allocCommand,
  breakCommand,
  closeCommand,
  discardCommand,
  faultCommand,
  flushCommand,
  helpCommand,
  infoCommand,
  lengthCommand,
  mapCommand,
  markCommand,
  openCommand,
  quitCommand,
  readCommand,
  readvCommand,
  removeBreakCommand,
  reopenCommand,
  resumeCommand,
  sigraiseCommand,
  sleepCommand,
  truncateCommand,
  waitBreakCommand,
  writeCommand,
  writevCommand,
];

export function commandsOf({ qemu }: Dialect): readonly IoCommand[] {
  return qemu ? COMMANDS.filter((command) => command.beyond !== true) : COMMANDS;
}
