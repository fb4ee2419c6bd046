/** What the fields of rules and actions may be, however they were written: as options, or by a program. */
import { BlockError, codeOf } from '../../core/errors.ts';

export const IO_TYPES = ['read', 'write', 'write-zeroes', 'discard', 'flush', 'block-status'] as const;
export type IoType = (typeof IO_TYPES)[number];

/** What a rule does to the request that it hits. All but `error` go past QEMU. */
export const ACTIONS = ['error', 'delay', 'torn', 'corrupt', 'misdirect', 'drop', 'reorder'] as const;
export type ActionKind = (typeof ACTIONS)[number];

/** The longest delay, milliseconds: some eleven days. Timers take not much more. */
const DELAY_MAX = 1e9;

interface Check {
  readonly expects: string;
  fits(value: unknown): boolean;
}

const isWhole = (value: unknown, least: number, most = Number.MAX_SAFE_INTEGER) =>
  Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most;

const whole = (least: number): Check => ({
  expects: `a whole number of at least ${least}`,
  fits: (value) => isWhole(value, least),
});

const number = (most: number): Check => ({
  expects: `a number from 0 to ${most}`,
  fits: (value) => typeof value === 'number' && value >= 0 && value <= most,
});

const oneOf = (values: readonly string[]): Check => ({
  expects: `one of ${values.join(', ')}`,
  fits: (value) => values.some((each) => each === value),
});

const FLAG: Check = { expects: 'true or false', fits: (value) => typeof value === 'boolean' };

const STATE: Check = {
  expects: 'a whole number of 32 bits',
  fits: (value) => isWhole(value, -(2 ** 31), 2 ** 31 - 1),
};

const ERRNO: Check = {
  expects: "the name of an error such as 'EIO'",
  fits: (value) => value === undefined || codeOf({ code: value }) === value,
};

const RANGE: Check = {
  expects: 'an offset of at least 0 and a length of at least 1',
  fits(value) {
    if (value === undefined) return true;
    const { offset, length } = (value ?? {}) as { readonly offset?: unknown; readonly length?: unknown };
    return isWhole(offset, 0) && isWhole(length, 1);
  },
};

const TYPES: Check = {
  expects: `some of ${IO_TYPES.join(', ')}`,
  fits(value) {
    const given = value instanceof Set || Array.isArray(value) ? [...value] : [];
    return given.length > 0 && given.every((each) => IO_TYPES.includes(each));
  },
};

const BITS: Check = {
  expects: 'a list of whole numbers of at least 0',
  fits: (value) => Array.isArray(value) && value.every((bit) => isWhole(bit, 0)),
};

/** The fields of each kind of rule besides `kind` and `event`. */
const RULE_FIELDS: { readonly [kind: string]: { readonly [field: string]: Check } } = {
  'set-state': { state: STATE, newState: STATE },
  'inject-error': {
    state: STATE,
    errno: ERRNO,
    range: RANGE,
    once: FLAG,
    immediately: FLAG,
    ioTypes: TYPES,
    action: oneOf(ACTIONS),
    delayMs: number(DELAY_MAX),
    jitterMs: number(DELAY_MAX),
    bytes: whole(0),
    target: whole(0),
    bits: BITS,
    probability: number(1),
    every: whole(1),
    after: whole(0),
  },
};

/** What belongs to each kind of action that a scenario may return. */
const ACTION_FIELDS: { readonly [kind in ActionKind]: { readonly [field: string]: Check } } = {
  error: { errno: ERRNO },
  delay: { ms: number(DELAY_MAX) },
  torn: { bytes: whole(0), errno: ERRNO },
  corrupt: { bits: BITS },
  misdirect: { target: whole(0) },
  drop: {},
  reorder: {},
};

function refuse(name: string, { expects }: Check, value: unknown): BlockError {
  return new BlockError('EINVAL', `Parameter '${name}' expects ${expects}, not ${shown(value)}`);
}

function shown(value: unknown): string {
  return typeof value === 'object' ? (JSON.stringify(value) ?? '') : String(value);
}

/** Throws BlockError EINVAL for a field that is out of range, or that rules of its kind do not have. */
export function checkRule(rule: { readonly kind?: string; readonly event: unknown }): void {
  const { kind = 'inject-error', event: _event, ...given } = rule;
  const fields = Object.hasOwn(RULE_FIELDS, kind) ? RULE_FIELDS[kind] : undefined;
  if (fields === undefined) throw refuse('kind', oneOf(Object.keys(RULE_FIELDS)), kind);
  for (const [name, value] of Object.entries(given)) {
    const check = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (check === undefined) throw new BlockError('EINVAL', `Rules of kind '${kind}' have no parameter '${name}'`);
    if (!check.fits(value)) throw refuse(name, check, value);
  }
}

/** One field of a rule by the name that it has as an option. Throws BlockError EINVAL. */
export function checkField(field: string, value: unknown, name: string): void {
  const check = RULE_FIELDS['inject-error']?.[field];
  if (check !== undefined && !check.fits(value)) throw refuse(name, check, value);
}

/** Throws BlockError EINVAL for what a scenario returns and is no action. */
export function checkAction(action: { readonly kind: ActionKind }): void {
  const fields = Object.hasOwn(ACTION_FIELDS, action.kind) ? ACTION_FIELDS[action.kind] : undefined;
  if (fields === undefined) throw refuse('kind', oneOf(ACTIONS), action.kind);
  for (const [name, check] of Object.entries(fields)) {
    const value = (action as { readonly [name: string]: unknown })[name];
    if (!check.fits(value)) throw refuse(name, check, value);
  }
}
