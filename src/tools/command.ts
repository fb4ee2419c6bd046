/** A command: its part of the command line, its help, and what it does. */
import { Getopt, type OptionSpec, type WrongOption } from './command-line/getopt.ts';
import { nearest } from './command-line/nearest.ts';
import type { Context } from './context.ts';
import type { Dialect } from './dialect.ts';
import { Failure, HelpRequest, misuse, suggestion } from './failure.ts';
import { progressMode } from './output/progress.ts';

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
  /** Exit status of failures other than misuse. Default 1. */
  readonly failureStatus?: number;
  /** Resolves with the exit status. Throws Failure or BlockError. */
  run(context: Context): Promise<number>;
}

/** T-GEN-4. */
export function wrongOption({ kind, word }: WrongOption): Failure {
  return misuse(kind === 'unknown' ? `unrecognized option '${word}'` : `missing argument for option '${word}'`);
}

/** For people: which option was probably meant. */
function withSuggestion(failure: Failure, { kind, word }: WrongOption, table: readonly OptionSpec[]): Failure {
  if (kind !== 'unknown' || !word.startsWith('--')) return failure;
  const names = table.filter(({ unavailable }) => !unavailable).flatMap(({ long }) => long ?? []);
  const meant = nearest(word.slice(2).replace(/=.*/s, ''), names);
  return new Failure(failure.message, { ...failure.details, hint: suggestion(meant && `--${meant}`) });
}

const HELP: OptionSpec = { short: 'h', long: 'help', help: 'show this help' };

/** The options that `dialect` has. */
export function optionsOf(command: Command, dialect: Dialect): readonly OptionSpec[] {
  return [HELP, ...command.options.filter((spec) => !(dialect.qemu && spec.beyond))];
}

/** What the command line gave; keys are those of {@link optionKey}. */
export class GivenOptions {
  readonly #values = new Map<string, string>();
  readonly operands: readonly string[];

  constructor(values: ReadonlyMap<string, string>, operands: readonly string[]) {
    this.#values = new Map(values);
    this.operands = operands;
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  /** The argument; of an option given several times the last one. */
  text(key: string): string | undefined {
    return this.#values.get(key);
  }

  /** The only operand. */
  get filename(): string {
    const [name] = this.operands;
    if (name === undefined || this.operands.length !== 1) throw misuse('Expecting one image file name');
    return name;
  }
}

/** Called with an option's argument when it is read, for what is checked at once or accumulates. */
export type OptionHandlers = { readonly [key: string]: (value: string) => void };

/** Reads the command line. Throws Failure, HelpRequest, and what handlers throw. */
export function readCommandLine(
  context: Context,
  command: Command,
  handlers: OptionHandlers = {},
  words: readonly string[] = context.words,
): GivenOptions {
  const table = optionsOf(command, context.dialect);
  const stopAtOperand = process.env.POSIXLY_CORRECT !== undefined;
  const getopt = new Getopt([command.name, ...words], table, { stopAtOperand });
  const values = new Map<string, string>();
  for (;;) {
    const parsed = getopt.next();
    if (parsed === undefined) return new GivenOptions(values, getopt.operands());
    if (parsed.kind !== 'option') {
      if (!context.dialect.qemu) throw withSuggestion(wrongOption(parsed), parsed, table);
      if (command.name !== 'measure') throw wrongOption(parsed);
      throw new HelpRequest(command, `measure: ${parsed.detail}`);
    }
    const { key, value } = parsed;
    if (key === 'help') throw new HelpRequest(command);
    if (key === 'object') context.objects.add(value);
    if (key === 'progress') progressMode(value);
    handlers[key]?.(value);
    values.set(key, value);
  }
}
