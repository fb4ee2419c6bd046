/** A command of the shell: its words, its help, and what it does. */
import { Getopt, type OptionSpec } from '../command-line/getopt.ts';
import { CommandFailure } from './failure.ts';
import type { Session } from './session.ts';

export interface IoCommand {
  readonly name: string;
  readonly alias?: string;
  /** The fewest words after the name, options counted. */
  readonly min: number;
  /** The most; absent: any number. */
  readonly max?: number;
  /** What follows the name in the usage line; absent: nothing does. */
  readonly usage?: string;
  readonly summary: string;
  /** Paragraphs for `help NAME`. */
  readonly details?: string;
  /** Option letters as getopt(3) takes them: `CP:q`. Absent: words are not looked at for options. */
  readonly letters?: string;
  /** Needs no open image. */
  readonly withoutImage?: boolean;
  /** Needs the permission to write. */
  readonly writes?: boolean;
  /** Ours alone: not there where qemu-io's command line is reproduced. */
  readonly beyond?: boolean;
  /**
   * Throws CommandFailure, Failure or BlockError. What needs no waiting returns nothing at once, so that nothing else
   * runs meanwhile: completions print when the loop runs (T-AIO-1).
   */
  run(session: Session, call: Call): void | Promise<void>;
}

/** `write [-C] off len -- writes …` (T-IO-7). */
export function usageLine(command: IoCommand, name = command.name): string {
  return `${name}${command.usage === undefined ? '' : ` ${command.usage}`} -- ${command.summary}`;
}

/** By its name or its alias. */
export function findCommand(commands: readonly IoCommand[], name: string): IoCommand | undefined {
  return commands.find((command) => command.name === name || command.alias === name);
}

/** Words between blanks; several blanks are one (T-IO-4). */
export function splitLine(line: string): string[] {
  return line.split(' ').filter((word) => word !== '');
}

/** Letters given, and the last argument of those that take one. */
export class Given {
  readonly #values = new Map<string, string>();
  operands: readonly string[] = [];

  add(letter: string, value: string): void {
    this.#values.set(letter, value);
  }

  has(letter: string): boolean {
    return this.#values.has(letter);
  }
}

/** Called with an option's argument when it is read: what is wrong with it is told before what is wrong behind it. */
export type LetterHandlers = { readonly [letter: string]: (value: string) => void };

/** One call of a command. */
export class Call {
  readonly command: IoCommand;
  /** The words after the name. */
  readonly words: readonly string[];
  /** The command's name as it was typed. */
  readonly typed: string;

  constructor(command: IoCommand, typed: string, words: readonly string[]) {
    this.command = command;
    this.typed = typed;
    this.words = words;
  }

  /** Throws CommandFailure for an option that there is not, and what handlers throw. */
  read(handlers: LetterHandlers = {}): Given {
    const stopAtOperand = process.env.POSIXLY_CORRECT !== undefined;
    const table = lettersTable(this.command.letters ?? '');
    const getopt = new Getopt([this.typed, ...this.words], table, { stopAtOperand, shortOnly: true });
    const given = new Given();
    for (let parsed = getopt.next(); parsed !== undefined; parsed = getopt.next()) {
      if (parsed.kind !== 'option') {
        throw new CommandFailure({ complaint: `${this.typed}: ${parsed.detail}`, usage: true });
      }
      handlers[parsed.key]?.(parsed.value);
      given.add(parsed.key, parsed.value);
    }
    given.operands = getopt.operands();
    return given;
  }
}

function lettersTable(letters: string): OptionSpec[] {
  return [...letters.matchAll(/(\w)(:?)/g)].map(([, short = '', colon]) => ({
    short,
    help: '',
    ...(colon === ':' && { argument: 'ARGUMENT' }),
  }));
}
