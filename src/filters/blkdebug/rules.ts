/** Rules of fault injection, and how they are written as options (BD-20, BD-21, BD-61). */

import { errnoCode } from '../../core/errno.ts';
import { BlockError, type ErrorCode, errorText } from '../../core/errors.ts';
import {
  type Option,
  type OptionTree,
  type OptionValue,
  option,
  parseInteger,
  parseSizeOption,
} from '../../core/options.ts';
import { type DebugEvent, isDebugEvent } from './events.ts';
import { ACTIONS, type ActionKind, checkField, checkRule, IO_TYPES, type IoType } from './rule-checks.ts';

export type { ActionKind, IoType };

export interface InjectError {
  readonly kind: 'inject-error';
  readonly event: DebugEvent;
  /** 0: in any state. */
  readonly state: number;
  /** Undefined: the request goes on, and rules behind this one are not asked. */
  readonly errno: ErrorCode | undefined;
  /** First byte that it is about, and how many; absent: any request, flushes too. */
  readonly range: { readonly offset: number; readonly length: number } | undefined;
  readonly once: boolean;
  /** In the same turn of the loop, before anything is submitted. */
  readonly immediately: boolean;
  readonly ioTypes: ReadonlySet<IoType>;
  readonly action: ActionKind;
  /** Of `delay`. */
  readonly delayMs: number;
  readonly jitterMs: number;
  /** Of `torn`: bytes that reach the child. */
  readonly bytes: number;
  /** Of `misdirect`: where the write lands, bytes. What would land past the disk's end is lost. */
  readonly target: number;
  /** Of `corrupt`: bits that are flipped, from the start of the request; absent: one that chance picks. */
  readonly bits: readonly number[];
  /** Of 1: how often a request that it matches is hit. */
  readonly probability: number;
  /** Hits only each n-th request that it matches, not counting the first `after`. */
  readonly every: number;
  readonly after: number;
}

export interface SetState {
  readonly kind: 'set-state';
  readonly event: DebugEvent;
  readonly state: number;
  readonly newState: number;
}

export type Rule = InjectError | SetState;

/** Rules as a library user writes them; what is left out has the default that config files have. */
export type RuleOptions =
  | ({ readonly kind: 'set-state' } & {
      readonly event: DebugEvent;
      readonly state?: number;
      readonly newState?: number;
    })
  | ({ readonly kind?: 'inject-error'; readonly event: DebugEvent; readonly ioTypes?: Iterable<IoType> } & Partial<
      Omit<InjectError, 'kind' | 'event' | 'ioTypes'>
    >);

const DEFAULT_TYPES: readonly IoType[] = IO_TYPES.filter((type) => type !== 'block-status');

const INJECT_DEFAULTS: Omit<InjectError, 'event'> = {
  kind: 'inject-error',
  state: 0,
  errno: 'EIO',
  range: undefined,
  once: false,
  immediately: false,
  ioTypes: new Set(DEFAULT_TYPES),
  action: 'error',
  delayMs: 0,
  jitterMs: 0,
  bytes: 0,
  target: 0,
  bits: [],
  probability: 1,
  every: 1,
  after: 0,
};

/** A whole rule of what was given. Throws BlockError EINVAL for an event that there is not, and for what is out of range. */
export function completeRule(rule: RuleOptions): Rule {
  if (!isDebugEvent(rule.event)) throw invalid(rule.event);
  // Where no error is a choice, undefined says so; else it is what is left out.
  const fields = Object.entries(rule).filter(([name, value]) => value !== undefined || name === 'errno');
  const given = Object.fromEntries(fields) as unknown as RuleOptions;
  checkRule(given);
  if (given.kind === 'set-state') return { state: 0, newState: 0, ...given };
  const { ioTypes = DEFAULT_TYPES, ...rest } = given;
  return { ...INJECT_DEFAULTS, ...rest, kind: 'inject-error', ioTypes: new Set(ioTypes) };
}

function invalid(value: unknown): BlockError {
  return new BlockError('EINVAL', `invalid parameter value: ${value}`);
}

type Fields = { readonly [key: string]: Option<unknown> };

/** A number within the range that the rule's field has. */
const number = (field: string, fallback?: number) => {
  const plain = option.number<number | undefined>({ help: '', fallback });
  const parse = (value: OptionValue, name: string) => {
    const parsed = plain.parse(value, name);
    checkField(field, parsed, name);
    return parsed;
  };
  return { ...plain, parse };
};

/** A size that is used as an offset. */
const offset = (least: number, fallback?: number) => ({
  ...option.size<number | undefined>({ help: '', fallback }),
  parse(value: OptionValue, name: string): number {
    const size = parseSizeOption(value, name);
    if (size < least || !Number.isSafeInteger(size)) {
      throw new BlockError('EINVAL', `Parameter '${name}' expects a size from ${least} to ${Number.MAX_SAFE_INTEGER}`);
    }
    return size;
  },
});

/** A whole number of C, which wraps to so many bits: -1 is what it is there. */
const integer = (bits: number, fallback: number) => ({
  ...option.number({ help: '', fallback }),
  parse(value: OptionValue, name: string): number {
    return Number(BigInt.asIntN(bits, parseInteger(value, name)));
  },
});
const text = option.text<string | undefined>({ help: '', fallback: undefined });
const flag = option.boolean({ help: '', fallback: false });

const INJECT_FIELDS: Fields = {
  event: text,
  state: integer(32, 0),
  errno: { ...text, parse: parseErrno },
  sector: integer(64, -1),
  once: flag,
  immediately: flag,
  iotype: option.choice<IoType, IoType | undefined>(IO_TYPES, { help: '', fallback: undefined }),
  action: option.choice(ACTIONS, { help: '', fallback: 'error' }),
  'delay-ms': number('delayMs', 0),
  'jitter-ms': number('jitterMs', 0),
  bytes: number('bytes', 0),
  target: offset(0, 0),
  bit: number('bytes'),
  probability: text,
  every: number('every', 1),
  after: number('after', 0),
  offset: offset(0),
  length: offset(1),
};

const STATE_FIELDS: Fields = { event: text, state: integer(32, 0), new_state: integer(32, 0) };

export type Section = 'inject-error' | 'set-state';

/** Whether a section has an option of that name. */
export function hasField(section: Section, key: string): boolean {
  return Object.hasOwn(section === 'inject-error' ? INJECT_FIELDS : STATE_FIELDS, key);
}

/** One rule of the options of a section. Throws BlockError EINVAL, in the words of the origin where it has the option. */
export function parseRule(section: Section, tree: OptionTree): Rule {
  const fields = section === 'inject-error' ? INJECT_FIELDS : STATE_FIELDS;
  const values: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(tree)) {
    const field = fields[key];
    if (field === undefined) {
      throw new BlockError('EINVAL', `[${section}] section doesn't support the option '${key}'`);
    }
    values[key] = field.parse(value, key);
  }
  const value = <T>(key: string) => (Object.hasOwn(values, key) ? values[key] : fields[key]?.fallback) as T;
  const event = value<string | undefined>('event');
  if (event === undefined) throw new BlockError('EINVAL', 'Missing event name for rule');
  if (!isDebugEvent(event)) throw invalid(event);
  if (section === 'set-state') {
    return { kind: 'set-state', event, state: value('state'), newState: value('new_state') };
  }
  const ioType = value<IoType | undefined>('iotype');
  return {
    kind: 'inject-error',
    event,
    state: value('state'),
    errno: 'errno' in tree ? value('errno') : 'EIO',
    range: parseRange(tree, value('sector'), value('offset'), value('length')),
    once: value('once'),
    immediately: value('immediately'),
    ioTypes: new Set(ioType === undefined ? DEFAULT_TYPES : [ioType]),
    action: value('action'),
    delayMs: value('delay-ms'),
    jitterMs: value('jitter-ms'),
    bytes: value('bytes'),
    target: value('target'),
    bits: value<number | undefined>('bit') === undefined ? [] : [value('bit')],
    probability: parseProbability(value('probability')),
    every: value('every'),
    after: value('after'),
  };
}

/** A number or a symbolic name. 0, and what is below it: no error. */
function parseErrno(given: OptionValue): ErrorCode | undefined {
  const name = String(given);
  if (/^E[A-Z0-9]+$/.test(name)) {
    const code = name as ErrorCode;
    if (errorText(code) === undefined) throw invalid(given);
    return code;
  }
  const number = integer(32, 0).parse(given, 'errno');
  return number <= 0 ? undefined : errnoCode(number);
}

/** Sectors below 0 are none, save -1, which is any. */
function parseRange(tree: OptionTree, sector: number, offset: number | undefined, length: number | undefined) {
  if (offset !== undefined) {
    if ('sector' in tree) throw new BlockError('EINVAL', "Parameters 'sector' and 'offset' are mutually exclusive");
    return { offset, length: length ?? 1 };
  }
  if (sector !== -1) return { offset: sector * 512, length: length ?? 1 };
  if (length !== undefined) throw new BlockError('EINVAL', "Parameter 'length' expects 'offset' or 'sector' beside it");
  return undefined;
}

function parseProbability(given: string | undefined): number {
  if (given === undefined) return 1;
  const value = Number(given);
  if (given.trim() === '' || !(value >= 0 && value <= 1)) throw invalid(given);
  return value;
}

/**
 * Takes a section's rules out of options: `inject-error.event=…` for one, `inject-error.0.event=…` for several (BD-3).
 * `tree` has no prefix any more.
 */
export function parseSection(section: Section, tree: OptionTree): Rule[] {
  const keys = Object.keys(tree);
  const [known, other] = [keys.find((key) => hasField(section, key)), keys.find((key) => !hasField(section, key))];
  if (known === undefined) return parseList(section, tree);
  if (other !== undefined) throw new BlockError('EINVAL', `Unknown option '${other}' for [${section}]`);
  return [parseRule(section, tree)];
}

function parseList(section: Section, tree: OptionTree): Rule[] {
  const left = new Map(Object.entries(tree));
  const rules: Rule[] = [];
  for (;;) {
    const index = String(rules.length);
    if (left.has(index)) {
      throw new BlockError('EINVAL', `[${section}] section (index ${index}) does not consist of keys`);
    }
    const own = [...left].filter(([key]) => key.startsWith(`${index}.`));
    if (own.length === 0) break;
    for (const [key] of own) left.delete(key);
    rules.push(parseRule(section, Object.fromEntries(own.map(([key, value]) => [key.slice(index.length + 1), value]))));
  }
  const [unused] = left.keys();
  if (unused !== undefined) throw new BlockError('EINVAL', `Unused option '${unused}' for [${section}]`);
  return rules;
}
