/** `-o` lists of creation options (T-OPT-1, T-OPT-2). */

import type { OptionTree } from '../../core/options.ts';
import { parseKeyValues } from '../../core/options.ts';
import { Failure } from '../failure.ts';

/** All `-o` of a command line. */
export class OptionList {
  #text: string | undefined;

  /** Appends one `-o`. Throws for a list that could not be joined with another. */
  add(text: string): void {
    if (!isWellFormed(text)) throw new Failure(`Invalid option list: ${text}`);
    this.#text = this.#text === undefined ? text : `${this.#text},${text}`;
  }

  get given(): boolean {
    return this.#text !== undefined;
  }

  /** Whether help is asked for, anywhere in the list. */
  get wantsHelp(): boolean {
    // A doubled comma is text, so that what follows it begins no item.
    const items = (this.#text ?? '').replaceAll(',,', '\0').split(',');
    return items.some((item) => /^(help|\?)(\0|$)/.test(item));
  }

  tree(): OptionTree {
    return this.#text === undefined ? {} : parseKeyValues(this.#text);
  }
}

/** Not empty, no comma in front, no single comma at the end. */
function isWellFormed(text: string): boolean {
  const commasAtEnd = /,*$/.exec(text)?.[0].length ?? 0;
  return text !== '' && !text.startsWith(',') && commasAtEnd % 2 === 0;
}
