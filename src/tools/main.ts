/** The programs of the image commands: standard options, the command's name, its run. */
import { basename } from 'node:path';
import { type Command, wrongOption } from './command.ts';
import { Getopt, type OptionSpec } from './command-line/getopt.ts';
import { nearest } from './command-line/nearest.ts';
import { ObjectList } from './command-line/objects.ts';
import { commands } from './commands/index.ts';
import type { Dialect } from './dialect.ts';
import { Failure, HelpRequest, misuse, suggestion, withCommand, withStatus } from './failure.ts';
import { versionText } from './output/version.ts';
import { endWithProgram, type Program, type ProgramParts } from './program.ts';
import { interruptSignal } from './signals.ts';

const STANDARD_OPTIONS: readonly OptionSpec[] = [
  { short: 'h', long: 'help', help: 'show this help' },
  { short: 'V', long: 'version', help: 'show the version' },
  { short: 'T', long: 'trace', argument: 'TRACE', help: 'specify tracing options' },
];

/** Runs a program and ends the process. `qemu`: speak qemu-img's command line. */
export function main(qemu: boolean): Promise<void> {
  const [, path = '', ...words] = process.argv;
  return endWithProgram({ name: basename(path), qemu }, imageProgram(words));
}

/** The image commands, given the words after the program's name. */
export function imageProgram(words: readonly string[]): ProgramParts {
  return {
    run: (program) => run(program, words),
    help: async (spoken, about) => (await import('./output/help.ts')).helpText(spoken, about),
  };
}

async function run({ dialect, out, messages }: Program, rest: readonly string[]): Promise<number> {
  if (rest.length === 0) throw misuse('Not enough arguments');
  const getopt = new Getopt([dialect.name, ...rest], STANDARD_OPTIONS, { stopAtOperand: true });
  for (let parsed = getopt.next(); parsed !== undefined; parsed = getopt.next()) {
    if (parsed.kind !== 'option') throw wrongOption(parsed);
    if (parsed.key === 'help') throw new HelpRequest();
    if (parsed.key === 'version') {
      out.write(versionText(dialect, 'qemu-img'));
      return 0;
    }
    (await import('./command-line/trace.ts')).traceArgument(parsed.value, messages);
  }
  const [name, ...words] = getopt.operands();
  if (name === undefined) return 0;
  if (name === 'help' && !dialect.qemu)
    throw new HelpRequest(words[0] === undefined ? undefined : await find(words[0], dialect));
  const command = await find(name, dialect);
  const context = {
    dialect,
    words,
    out,
    messages,
    objects: new ObjectList(),
    get signal() {
      return interruptSignal();
    },
  };
  try {
    return await command.run(context);
  } catch (error) {
    throw withStatus(withCommand(error, command.name), command.failureStatus ?? 1);
  }
}

async function find(name: string, { qemu }: Dialect): Promise<Command> {
  const found = commands.find((entry) => entry.name === name);
  if (found !== undefined) return found.load();
  const names = commands.map((entry) => entry.name);
  const hint = qemu ? undefined : suggestion(nearest(name, names));
  throw new Failure(`Command not found: ${name}`, { misuse: true, hint });
}
