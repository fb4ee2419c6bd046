/** A command: its part of the command line, its help, and what it does. */
import { Getopt, type OptionSpec, type WrongOption } from './command-line/getopt.ts';
import type { Context } from './context.ts';
import type { Dialect } from './dialect.ts';
import { type Failure, misuse } from './failure.ts';

export interface Command {
  readonly name: string;
  /** One line, for people. */
  readonly summary: string;
  /** qemu-img's usage line of the command, without its name; ours for the commands it has not. */
  readonly usage: string;
  readonly options: readonly OptionSpec[];
  /** What follows the options, e.g. `FILENAME [SIZE]`. */
  readonly operands: string;
  /** A paragraph or two for people. */
  readonly description?: string;
  readonly examples: readonly string[];
  /** Resolves with the exit status. Throws Failure or BlockError. */
  run(context: Context): Promise<number>;
}

/** Ends a command because help was asked for. */
export class HelpRequest extends Error {
  override readonly name = 'HelpRequest';
  /** Help on a command; absent: on the program. Or the help itself. */
  readonly about: Command | string | undefined;
  /** What led here, if it was a mistake: the C library's sentence (measure, T-GEN-7). */
  readonly complaint: string | undefined;

  constructor(about?: Command | string, complaint?: string) {
    super('help was asked for');
    this.about = about;
    this.complaint = complaint;
  }
}

/** T-GEN-4. */
export function wrongOption({ kind, word }: WrongOption): Failure {
  return misuse(kind === 'unknown' ? `unrecognized option '${word}'` : `missing argument for option '${word}'`);
}

const HELP: OptionSpec = { short: 'h', long: 'help', help: 'Show this help' };

/** The options that `dialect` has. */
export function optionsOf(command: Command, dialect: Dialect): readonly OptionSpec[] {
  return [HELP, ...command.options.filter((spec) => !(dialect.qemu && spec.beyond))];
}

/** Called with an option's argument, empty for those without, in the order of the command line. */
export type OptionHandlers = { readonly [key: string]: (value: string) => void };

/** Reads the command line and returns the operands. Throws misuse Failure, HelpRequest, and what handlers throw. */
export function readCommandLine(
  context: Context,
  command: Command,
  handlers: OptionHandlers,
  words: readonly string[] = context.words,
): string[] {
  const table = optionsOf(command, context.dialect);
  const stopAtOperand = process.env.POSIXLY_CORRECT !== undefined;
  const getopt = new Getopt([command.name, ...words], table, { stopAtOperand });
  for (;;) {
    const parsed = getopt.next();
    if (parsed === undefined) return getopt.operands();
    if (parsed.kind !== 'option') {
      if (command.name !== 'measure' || !context.dialect.qemu) throw wrongOption(parsed);
      throw new HelpRequest(command, `measure: ${parsed.detail}`);
    }
    if (parsed.key === 'help') throw new HelpRequest(command);
    handlers[parsed.key]?.(parsed.value);
  }
}
