/**
 * JSON as people type it on command lines: strings in either kind of quotes, so that a shell's own need no escaping,
 * and messages that say what is wrong in the words QEMU's users know (BL-NAME-8, T-GEN-13).
 */
import { BlockError } from './errors.ts';

export type JsonValue = string | number | boolean | null | JsonValue[] | { [key: string]: JsonValue };

/** Containers inside one another: more is a mistake or an attack. */
const MAX_DEPTH = 1024;

const BLANK = /[ \t\r\n]*/y;
const MARK = /[{}[\],:]/y;
const WORD = /[a-z]+/y;
const NUMBER = /-?(?:0(?!\d)|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
/** Two that are read only when wanted: classes of characters take a while to look up. */
const string = () => /"(?:[^"\\\p{Cc}]|\\[^\p{Cc}])*"|'(?:[^'\\\p{Cc}]|\\[^\p{Cc}])*'/uy;
/** As much of a token as could begin one. */
const BEGUN_NUMBER = /-?(?:(?:0|[1-9]\d*)(?:\.(?:\d+(?:[eE][+-]?)?)?|[eE][+-]?)?)?/y;
const begunString = () => /(?:"(?:[^"\\\p{Cc}]|\\[^\p{Cc}])*|'(?:[^'\\\p{Cc}]|\\[^\p{Cc}])*)\\?/uy;

interface Token {
  readonly kind: 'mark' | 'word' | 'number' | 'string';
  readonly text: string;
}

/** The one value that `text` is. Throws BlockError EINVAL. */
export function parseJson(text: string): JsonValue {
  const { tokens, end } = firstValue(text);
  if (tokens.length === 0) throw new BlockError('EINVAL', 'Expecting a JSON value');
  const value = new Parser(tokens).value();
  if (/[^ \t\r\n]/.test(text.slice(end))) throw new BlockError('EINVAL', 'Expecting at most one JSON value');
  return value;
}

/** The tokens up to where all brackets are closed, or the text ends; what cannot be read is told before grammar is looked at. */
function firstValue(text: string): { tokens: Token[]; end: number } {
  const tokens: Token[] = [];
  let depth = 0;
  let at = matchAt(BLANK, text, 0)?.length ?? 0;
  while (at < text.length) {
    const token = tokenAt(text, at);
    tokens.push(token);
    at += token.text.length;
    if (token.text === '{' || token.text === '[') depth++;
    if (token.text === '}' || token.text === ']') depth--;
    if (depth > MAX_DEPTH) throw new BlockError('EINVAL', 'JSON nesting depth limit exceeded');
    if (depth <= 0) break;
    at += matchAt(BLANK, text, at)?.length ?? 0;
  }
  return { tokens, end: at };
}

function matchAt(pattern: RegExp, text: string, at: number): string | undefined {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0];
}

function tokenAt(text: string, at: number): Token {
  const kinds = [
    ['mark', MARK],
    ['word', WORD],
    ['string', string()],
    ['number', NUMBER],
  ] as const;
  for (const [kind, pattern] of kinds) {
    const found = matchAt(pattern, text, at);
    if (found === undefined) continue;
    // A number that goes on as if it had a fraction or an exponent, and then has none, is none.
    const begun = kind === 'number' ? (matchAt(BEGUN_NUMBER, text, at) ?? '') : '';
    if (begun.length <= found.length) return { kind, text: found };
  }
  const begun = matchAt(begunString(), text, at) ?? matchAt(BEGUN_NUMBER, text, at) ?? '';
  const [next = ''] = text.slice(at + begun.length);
  throw problem(`stray '${begun}${next}'`);
}

function problem(message: string): BlockError {
  return new BlockError('EINVAL', `JSON parse error, ${message}`);
}

class Parser {
  readonly #tokens: readonly Token[];
  #next = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  value(): JsonValue {
    const token = this.#take();
    switch (token.kind) {
      case 'string':
        return unescaped(token.text);
      case 'number':
        return Number(token.text);
      case 'word':
        return keyword(token.text);
      case 'mark':
        if (token.text === '{') return this.#object();
        if (token.text === '[') return this.#array();
        throw problem('expecting value');
    }
  }

  #object(): JsonValue {
    const object: { [key: string]: JsonValue } = Object.create(null);
    if (this.#skip('}')) return object;
    for (;;) {
      const key = this.value();
      if (typeof key !== 'string') throw problem('key is not a string in object');
      if (this.#take().text !== ':') throw problem('missing : in object pair');
      const value = this.value();
      if (Object.hasOwn(object, key)) throw problem('duplicate key');
      object[key] = value;
      if (this.#skip('}')) return object;
      if (this.#take().text !== ',') throw problem('expected separator in dict');
    }
  }

  #array(): JsonValue {
    const array: JsonValue[] = [];
    if (this.#skip(']')) return array;
    for (;;) {
      array.push(this.value());
      if (this.#skip(']')) return array;
      if (this.#take().text !== ',') throw problem('expected separator in list');
    }
  }

  #take(): Token {
    const token = this.#tokens[this.#next++];
    if (token === undefined) throw problem('premature EOI');
    return token;
  }

  #skip(mark: string): boolean {
    const token = this.#tokens[this.#next];
    if (token?.kind !== 'mark' || token.text !== mark) return false;
    this.#next++;
    return true;
  }
}

function keyword(word: string): boolean | null {
  if (word === 'null') return null;
  if (word === 'true' || word === 'false') return word === 'true';
  throw problem(`invalid keyword '${word}'`);
}

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "'": "'",
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};

/** The text of a quoted string. */
function unescaped(quoted: string): string {
  let text = '';
  for (let at = 1; at < quoted.length - 1; ) {
    const slash = quoted.indexOf('\\', at);
    if (slash < 0) return text + quoted.slice(at, -1);
    text += quoted.slice(at, slash);
    const letter = quoted.charAt(slash + 1);
    at = slash + 2;
    if (letter !== 'u') {
      const meant = ESCAPES[letter];
      if (meant === undefined) throw problem('invalid escape sequence in string');
      text += meant;
    } else {
      const escaped = unicodeAt(quoted, slash);
      text += escaped.character;
      at = slash + escaped.length;
    }
  }
  return text;
}

/** The character that `\uXXXX`, or two of them for a pair of surrogates, stands for. */
function unicodeAt(quoted: string, slash: number): { character: string; length: number } {
  const invalid = () => problem(`\\u${quoted.slice(slash + 2, slash + 6)} is not a valid Unicode character`);
  const first = hexUnit(quoted, slash);
  if (first === undefined || (first >= 0xdc00 && first < 0xe000)) throw invalid();
  if (first >= 0xd800 && first < 0xdc00) {
    const second = hexUnit(quoted, slash + 6);
    if (second === undefined || second < 0xdc00 || second >= 0xe000) throw invalid();
    return { character: String.fromCharCode(first, second), length: 12 };
  }
  if ((first >= 0xfdd0 && first <= 0xfdef) || first >= 0xfffe) throw invalid();
  return { character: String.fromCharCode(first), length: 6 };
}

function hexUnit(quoted: string, slash: number): number | undefined {
  const digits = /^\\u([0-9a-fA-F]{4})$/.exec(quoted.slice(slash, slash + 6))?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 16);
}
