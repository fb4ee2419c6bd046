/** JSON results as qemu-img prints them (T-FMT-3, T-FMT-4), since scripts compare the text. */
import { hashOrder } from '../../core/key-order.ts';

export type Json = string | number | bigint | boolean | null | readonly Json[] | JsonObject;
/** Members that are undefined are left out. Order of addition matters only within one bucket of T-FMT-4. */
export interface JsonObject {
  readonly [key: string]: Json | undefined;
}

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
};

const LONE_SURROGATE = /[\ud800-\udfff]/gu;

/** A string literal of ASCII only. */
export function jsonString(text: string): string {
  const escaped = text.replace(LONE_SURROGATE, '\ufffd').replace(/["\\]|[^ -~]/g, (character) => {
    const known = ESCAPES[character];
    return known ?? `\\u${character.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
  });
  return `"${escaped}"`;
}

/** A value over several lines, the first at the place it is put, the others indented by `depth` levels and more. */
export function jsonText(value: Json, depth = 0): string {
  if (typeof value === 'string') return jsonString(value);
  if (value === null || typeof value !== 'object') return typeof value === 'number' ? wholeNumber(value) : `${value}`;
  const inner = '    '.repeat(depth + 1);
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  const elements = Array.isArray(value)
    ? value.map((element: Json) => inner + jsonText(element, depth + 1))
    : members(value as JsonObject).map(([key, member]) => `${inner}${jsonString(key)}: ${jsonText(member, depth + 1)}`);
  const body = elements.length === 0 ? '' : `${elements.join(',\n')}\n`;
  return `${open}\n${body}${'    '.repeat(depth)}${close}`;
}

/** In the order of T-FMT-4. */
export function members(object: JsonObject): [string, Json][] {
  const present = Object.keys(object).filter((key) => object[key] !== undefined);
  return hashOrder(present).map((key) => [key, object[key] ?? null]);
}

/** All digits, also past the safe integers. */
function wholeNumber(value: number): string {
  return Number.isInteger(value) ? BigInt(value).toString() : String(value);
}
