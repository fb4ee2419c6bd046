/**
 * Option schemas: declared once per driver; types, `key=value`, dotted and JSON parsing, help and documentation
 * come from them. Wordings are those of T-OPT-4.
 */
import { parseSize } from '../bytes/size.ts';
import { BlockError } from './errors.ts';

/** A leaf of an option tree: as typed on a command line (strings) or given in JSON. */
export type OptionValue = string | number | boolean | null;

/** Options by dotted key (`file.filename`, `inject-error.0.event`), in the order given (BL-NAME-8). */
export interface OptionTree {
  readonly [key: string]: OptionValue;
}

/** Nested options, as in JSON or as a library user writes them. */
export interface NestedOptions {
  readonly [key: string]: OptionValue | undefined | NestedOptions | readonly (OptionValue | NestedOptions)[];
}

/** The value's type as help shows it (T-OPT-2). */
export type OptionType = 'str' | 'num' | 'size' | 'bool (on/off)';

/** One option of a driver: how it is read, and what is told of it. Made with {@link option}. */
export interface Option<T> {
  readonly type: OptionType;
  /** One line for help and documentation. */
  readonly help: string;
  /** Throws BlockError EINVAL in the words of T-OPT-4. */
  parse(value: OptionValue, name: string): T;
  readonly fallback: T;
  /** Shown in the `Formatting` line even when not given (T-CREATE-2). */
  readonly shown?: boolean;
  /** Not in QEMU: left out where its output is reproduced to the letter. */
  readonly beyond?: boolean;
  /** Whether a reopen may change it. */
  readonly reopen?: boolean;
  /** The legal values, where they can be listed. */
  readonly values?: readonly string[];
  /** Takes all options below the name (`NAME.key`, `NAME.0.key`), without the prefix, instead of one value. */
  readonly nested?: (inner: OptionTree) => T;
}

/** In display order. */
export type OptionSchema<O> = { readonly [K in keyof O]-?: Option<O[K]> };

/** Bounds of all schemas, for code that treats them alike. */
export type AnySchema = { readonly [key: string]: Option<unknown> };

/** A driver's schema; of drivers that are treated alike (`never`), any. */
export type SchemaOf<O> = [O] extends [never] ? AnySchema : OptionSchema<O>;

interface OptionTraits<T> {
  readonly help: string;
  readonly fallback: T;
  readonly shown?: boolean;
  readonly beyond?: boolean;
  readonly reopen?: boolean;
}

/** What follows a complaint about a size. */
export const SIZE_HINT =
  'Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.';

function badValue(message: string, hint?: string): BlockError {
  return new BlockError('EINVAL', message, { hint });
}

/** A size as T-OPT-4 words its errors; above the safe integers it is out of range. */
export function parseSizeOption(value: OptionValue, name: string): number {
  const expected = () => badValue(`Parameter '${name}' expects a non-negative number below 2^64`, SIZE_HINT);
  const parsed = typeof value === 'number' && Number.isInteger(value) ? BigInt(value) : parseSize(String(value));
  if (parsed === 'invalid' || (typeof parsed === 'bigint' && parsed < 0n)) throw expected();
  if (parsed === 'out-of-range') {
    throw badValue(`Value '${value}' is out of range for parameter '${name}'`);
  }
  // Whatever compares against it refuses it as too large; it is never used as an offset.
  return Number(parsed);
}

const TRUE: readonly OptionValue[] = [true, 'on', 'yes', 'true', 'y'];
const FALSE: readonly OptionValue[] = [false, 'off', 'no', 'false', 'n'];

export function parseBoolOption(value: OptionValue, name: string): boolean {
  if (TRUE.includes(value)) return true;
  if (FALSE.includes(value)) return false;
  throw badValue(`Parameter '${name}' expects 'on' or 'off'`);
}

const INTEGER = /^\s*([-+]?)(?:(0[xX][0-9a-fA-F]+)|0([0-7]+)|(0|[1-9]\d*))$/;

/** A whole number as C writes it (0x10, 020, 16), its sign too, below 2^64 either way. Throws BlockError EINVAL. */
export function parseInteger(value: OptionValue, name: string): bigint {
  const [, sign, hex, octal, decimal] = INTEGER.exec(String(value)) ?? [];
  if (sign === undefined) throw badValue(`Parameter '${name}' expects a number`);
  const size = BigInt(hex ?? (octal === undefined ? (decimal ?? 0) : `0o${octal}`));
  if (size >= 2n ** 64n) throw badValue(`Value '${value}' is too large for parameter '${name}'`);
  return sign === '-' ? -size : size;
}

/** Makes the options of a schema, by type. */
export const option = {
  /** A text; JSON numbers and booleans are taken as their text. */
  text<T extends string | undefined = string>(traits: OptionTraits<T>): Option<T | string> {
    return { ...traits, type: 'str', parse: (value) => String(value) };
  },
  /** A size in bytes, with suffixes. May exceed the safe integers: compare before using it as an offset. */
  size<T extends number | undefined = number>(traits: OptionTraits<T>): Option<T | number> {
    return { ...traits, type: 'size', parse: parseSizeOption };
  },
  number<T extends number | undefined = number>(traits: OptionTraits<T>): Option<T | number> {
    return {
      ...traits,
      type: 'num',
      parse(value, name) {
        const parsed = parseInteger(value, name);
        // Above the safe integers it is rounded; whatever compares against it refuses it as too large.
        if (parsed >= 0n) return Number(parsed);
        throw badValue(`Parameter '${name}' expects a number`);
      },
    };
  },
  /** Options below the name, taken whole: `parse` gets them without the prefix, and none at all for the default. */
  nested<T>(help: string, parse: (inner: OptionTree) => T): Option<T> {
    const refuse = (_value: OptionValue, name: string): T => {
      throw badValue(`Parameter '${name}' expects options below it`);
    };
    return { help, type: 'str', fallback: parse({}), parse: refuse, nested: parse };
  },
  boolean<T extends boolean | undefined = boolean>(traits: OptionTraits<T>): Option<T | boolean> {
    return { ...traits, type: 'bool (on/off)', parse: parseBoolOption };
  },
  choice<const V extends string, T extends V | undefined = V>(
    values: readonly V[],
    traits: OptionTraits<T>,
  ): Option<T | V> {
    return {
      ...traits,
      type: 'str',
      values,
      parse(value) {
        const found = values.find((candidate) => candidate === value);
        if (found === undefined) throw badValue(`invalid parameter value: ${value}`);
        return found;
      },
    };
  },
};

/** Picks the schema's options out of `tree`: their values, defaults filled in, and what is left over. */
export function parseOptions<O>(schema: OptionSchema<O>, tree: OptionTree): { values: O; rest: OptionTree } {
  const rest: Record<string, OptionValue> = { ...tree };
  const values: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(schema as AnySchema)) {
    if (spec.nested !== undefined) {
      values[name] = spec.nested(pickPrefix(rest, name));
      continue;
    }
    const given = rest[name];
    delete rest[name];
    values[name] = given === undefined ? spec.fallback : spec.parse(given, name);
  }
  return { values: values as O, rest };
}

/** Takes the options below `prefix.` out of `tree`. */
function pickPrefix(tree: Record<string, OptionValue>, prefix: string): OptionTree {
  const { inner } = takePrefix(tree, prefix);
  for (const key of Object.keys(inner)) delete tree[`${prefix}.${key}`];
  return inner;
}

/** A tree whose keys may be any text, `__proto__` too. */
function emptyTree(): Record<string, OptionValue> {
  return Object.create(null) as Record<string, OptionValue>;
}

/** Deeper than any graph; a name from elsewhere must not exhaust the stack. */
const NESTING_MAX = 100;

/**
 * Nested options as dotted keys (BL-NAME-8). Undefined members are left out. An empty object or list is there, so that one
 * that nobody understands is refused, as null, which names no child; `backing`, where null has a meaning, is left out. Throws BlockError EINVAL
 * when nested too deep.
 */
export function flattenOptions(nested: NestedOptions): OptionTree {
  const flat = emptyTree();
  flattenInto(flat, nested, '', 0);
  return flat;
}

function flattenInto(flat: Record<string, OptionValue>, nested: NestedOptions, prefix: string, depth: number): void {
  if (depth > NESTING_MAX) throw badValue(`Options are nested more than ${NESTING_MAX} deep`);
  for (const [key, value] of Object.entries(nested)) {
    if (value === undefined) continue;
    const isEmpty = typeof value === 'object' && value !== null && Object.keys(value).length === 0;
    if (isEmpty && key !== 'backing') flat[prefix + key] = null;
    else if (value === null || typeof value !== 'object') flat[prefix + key] = value;
    else flattenInto(flat, value as NestedOptions, `${prefix}${key}.`, depth + 1);
  }
}

/** Splits `tree` into the options below `prefix.` (prefix removed) and the others. */
export function takePrefix(tree: OptionTree, prefix: string): { inner: OptionTree; rest: OptionTree } {
  const inner = emptyTree();
  const rest = emptyTree();
  for (const [key, value] of Object.entries(tree)) {
    if (key.startsWith(`${prefix}.`)) inner[key.slice(prefix.length + 1)] = value;
    else rest[key] = value;
  }
  return { inner, rest };
}

/**
 * `a=b,c.d=e` as a tree; a literal comma in a value is doubled; a name alone means `on`, `noNAME` `off` (T-OPT-1).
 * With `impliedKey`, a first item without `=` is its value (T-GEN-11).
 */
export function parseKeyValues(text: string, impliedKey?: string): OptionTree {
  const tree = emptyTree();
  const items = splitItems(text, impliedKey !== undefined);
  items.forEach((item, index) => {
    const equals = item.indexOf('=');
    if (equals >= 0) tree[item.slice(0, equals)] = item.slice(equals + 1).replaceAll(',,', ',');
    else if (index === 0 && impliedKey !== undefined) tree[impliedKey] = item.replaceAll(',,', ',');
    else if (item.startsWith('no')) tree[item.slice(2)] = 'off';
    else if (item !== '') tree[item] = 'on';
  });
  return tree;
}

/** Splits at single commas; those doubled in a value stay doubled. The first item is a value, if a key is implied. */
function splitItems(text: string, impliedKey: boolean): string[] {
  const items: string[] = [];
  let start = 0;
  let inValue = impliedKey;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '=') inValue = true;
    if (text[i] !== ',') continue;
    if (inValue && text[i + 1] === ',') i++;
    else {
      items.push(text.slice(start, i));
      start = i + 1;
      inValue = false;
    }
  }
  items.push(text.slice(start));
  return items;
}
