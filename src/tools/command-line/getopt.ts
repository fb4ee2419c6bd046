/**
 * GNU option parsing (T-GEN-5): options and operands in any order, `--`, bundled short options, attached or separate
 * arguments, unique abbreviations of long ones. It permutes the words as the C library does, since the messages of
 * T-GEN-4 name "the word before the next one", which the permutation decides.
 */

export interface OptionSpec {
  /** One letter. */
  readonly short?: string;
  /** Without the dashes. */
  readonly long?: string;
  /** The argument's name in help; absent: the option takes none. */
  readonly argument?: string;
  /** One line for help. */
  readonly help: string;
  /** Ours alone: not accepted and not shown where qemu-img's command line is reproduced. */
  readonly beyond?: boolean;
  /** Understood, but no format here can do it: left out of help. */
  readonly unavailable?: boolean;
}

/** The long name, or the letter of an option without one. */
export function optionKey(spec: OptionSpec): string {
  return spec.long ?? spec.short ?? '';
}

export interface WrongOption {
  readonly kind: 'unknown' | 'missing';
  /** As T-GEN-4 names it. */
  readonly word: string;
  /** The sentence that the C library itself would print. */
  readonly detail: string;
}

export type ParsedOption = { readonly kind: 'option'; readonly key: string; readonly value: string } | WrongOption;

export interface GetoptOptions {
  /** Stop at the first operand instead of permuting. */
  readonly stopAtOperand?: boolean;
  /** There are no long options: two dashes begin a bundle like one. */
  readonly shortOnly?: boolean;
}

export class Getopt {
  readonly #words: string[];
  readonly #table: readonly OptionSpec[];
  readonly #stopAtOperand: boolean;
  readonly #shortOnly: boolean;
  /** Index of the next word; the operands skipped so far are `#firstOperand` up to `#lastOperand`. */
  #index = 1;
  #firstOperand = 1;
  #lastOperand = 1;
  /** Rest of a bundle of short options. */
  #bundle = '';

  /** `words[0]` is the name of the program or command, as in C. */
  constructor(words: readonly string[], table: readonly OptionSpec[], options: GetoptOptions = {}) {
    this.#words = [...words];
    this.#table = table;
    this.#stopAtOperand = options.stopAtOperand ?? false;
    this.#shortOnly = options.shortOnly ?? false;
  }

  /** The words left when {@link next} has returned undefined. */
  operands(): string[] {
    return this.#words.slice(this.#index);
  }

  next(): ParsedOption | undefined {
    if (this.#bundle === '') {
      const word = this.#advanceToOption();
      if (word === undefined) return undefined;
      if (word.startsWith('--') && !this.#shortOnly) return this.#longOption(word.slice(2));
      this.#bundle = word.slice(1);
    }
    return this.#shortOption();
  }

  /** Moves operands skipped behind the options seen; returns the next word that is an option. */
  #advanceToOption(): string | undefined {
    if (this.#lastOperand > this.#index) this.#lastOperand = this.#index;
    if (this.#firstOperand > this.#index) this.#firstOperand = this.#index;
    if (!this.#stopAtOperand) {
      this.#gatherOperands();
      while (this.#index < this.#words.length && !isOption(this.#words[this.#index])) this.#index++;
      this.#lastOperand = this.#index;
    }
    if (this.#words[this.#index] === '--') {
      this.#index++;
      this.#gatherOperands();
      this.#lastOperand = this.#words.length;
      this.#index = this.#words.length;
    }
    const word = this.#words[this.#index];
    if (word === undefined) {
      if (this.#firstOperand !== this.#lastOperand) this.#index = this.#firstOperand;
      return undefined;
    }
    return isOption(word) ? word : undefined;
  }

  /** Exchanges the operands skipped with the options that came after them. */
  #gatherOperands(): void {
    if (this.#firstOperand !== this.#lastOperand && this.#lastOperand !== this.#index) {
      const operands = this.#words.slice(this.#firstOperand, this.#lastOperand);
      const options = this.#words.slice(this.#lastOperand, this.#index);
      this.#words.splice(this.#firstOperand, operands.length + options.length, ...options, ...operands);
      this.#firstOperand += options.length;
    } else if (this.#lastOperand !== this.#index) {
      this.#firstOperand = this.#index;
    }
    this.#lastOperand = this.#index;
  }

  #longOption(text: string): ParsedOption {
    this.#index++;
    const equals = text.indexOf('=');
    const name = equals < 0 ? text : text.slice(0, equals);
    const exact = this.#table.find((spec) => spec.long === name);
    const candidates = exact ? [exact] : this.#table.filter((spec) => spec.long?.startsWith(name));
    const [spec] = candidates;
    if (spec === undefined) return this.#refuse('unknown', `unrecognized option '--${text}'`);
    if (candidates.length > 1) {
      const possibilities = candidates.map((candidate) => `'--${candidate.long}'`).join(' ');
      return this.#refuse('unknown', `option '--${text}' is ambiguous; possibilities: ${possibilities}`);
    }
    const key = optionKey(spec);
    if (spec.argument === undefined) {
      if (equals < 0) return { kind: 'option', key, value: '' };
      return this.#refuse('unknown', `option '--${spec.long}' doesn't allow an argument`);
    }
    if (equals >= 0) return { kind: 'option', key, value: text.slice(equals + 1) };
    const value = this.#words[this.#index];
    if (value === undefined) return this.#refuse('missing', `option '--${spec.long}' requires an argument`);
    this.#index++;
    return { kind: 'option', key, value };
  }

  #shortOption(): ParsedOption {
    const letter = this.#bundle.slice(0, 1);
    const rest = this.#bundle.slice(1);
    this.#bundle = rest;
    // The word is finished with its last letter only, which is what makes an unknown letter blame the word before.
    if (rest === '') this.#index++;
    const spec = this.#table.find((candidate) => candidate.short === letter);
    if (spec === undefined) return this.#refuse('unknown', `invalid option -- '${letter}'`);
    const key = optionKey(spec);
    if (spec.argument === undefined) return { kind: 'option', key, value: '' };
    this.#bundle = '';
    if (rest !== '') {
      this.#index++;
      return { kind: 'option', key, value: rest };
    }
    const value = this.#words[this.#index];
    if (value === undefined) return this.#refuse('missing', `option requires an argument -- '${letter}'`);
    this.#index++;
    return { kind: 'option', key, value };
  }

  #refuse(kind: WrongOption['kind'], detail: string): WrongOption {
    return { kind, word: this.#words[this.#index - 1] ?? '', detail };
  }
}

function isOption(word: string | undefined): boolean {
  return word !== undefined && word.length > 1 && word.startsWith('-');
}
