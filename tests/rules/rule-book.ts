/** A document of numbered rules, of which each is to have a test that cites it. */
export interface RuleBook {
  readonly name: string;
  /** All rules, in order. */
  readonly rules: readonly string[];
  /** Rules that need no test, and why. */
  readonly exempt: Readonly<Record<string, string>>;
  /** Rules without a test as yet. Shrinks, and never grows. */
  readonly pending: readonly string[];
}

/** `PREFIX-1` to `PREFIX-COUNT`. */
export function numbered(prefix: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${prefix}-${index + 1}`);
}

const CITED = /\b(?:BL-[A-Z]+|Q-[A-Z]+|BD|BV|N|V)-\d+\b/g;

/** The rules that a text names in full; a range names its ends only. */
export function citedRules(text: string): string[] {
  return text.match(CITED) ?? [];
}
