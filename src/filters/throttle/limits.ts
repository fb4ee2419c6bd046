/** Limits of a throttle group: their names, their values from options, and what makes sense (M-OBJ-3). */
import { BlockError } from '../../core/errors.ts';
import type { OptionTree, OptionValue } from '../../core/options.ts';
import type { BucketLimits } from './leaky-bucket.ts';

/** In the order they are checked. */
export const BUCKET_NAMES = ['bps-total', 'bps-read', 'bps-write', 'iops-total', 'iops-read', 'iops-write'] as const;
export type BucketName = (typeof BUCKET_NAMES)[number];

/** Bytes (`bps`) and requests (`iops`) per second, by kind of request. */
export interface ThrottleLimits extends Readonly<Record<BucketName, BucketLimits>> {
  /** A request of more than this many bytes counts as the number of times it is as long, with fractions. 0: as one. */
  readonly iopsSize: number;
}

/** What is set is kept; 0 means unlimited. */
const FREE: BucketLimits = { average: 0, max: 0, maxLength: 1 };

export const UNLIMITED: ThrottleLimits = {
  'bps-total': FREE,
  'bps-read': FREE,
  'bps-write': FREE,
  'iops-total': FREE,
  'iops-read': FREE,
  'iops-write': FREE,
  iopsSize: 0,
};

/** Highest rate, and highest number of units in one burst. */
const VALUE_MAX = 1e15;
const LENGTH_MAX = 2 ** 32 - 1;

const SUFFIXES = { '': 'average', '-max': 'max', '-max-length': 'maxLength' } as const;

interface Property {
  readonly bucket: BucketName | undefined;
  readonly field: keyof BucketLimits;
}

/** By property name: `iops-total`, `iops-total-max`, `iops-total-max-length`, …, `iops-size`. */
const PROPERTIES: ReadonlyMap<string, Property> = new Map<string, Property>([
  ...BUCKET_NAMES.flatMap((bucket) =>
    Object.entries(SUFFIXES).map(([suffix, field]) => [`${bucket}${suffix}`, { bucket, field }] as const),
  ),
  ['iops-size', { bucket: undefined, field: 'average' }] as const,
]);

type Mutable = { -readonly [K in BucketName]: { -readonly [F in keyof BucketLimits]: number } } & { iopsSize: number };

/**
 * `base` with the properties given, as `limits.NAME` or (these win) `x-NAME`. In `text` a value is a C integer.
 * Throws BlockError EINVAL: for a property that there is not, a value that is none, limits that make no sense.
 */
export function parseLimits(
  properties: OptionTree,
  base: ThrottleLimits = UNLIMITED,
  form: 'text' | 'json' = 'json',
): ThrottleLimits {
  // An empty object comes as null.
  const present = Object.entries(properties).filter(([key, value]) => key !== 'limits' || value !== null);
  const given = present.map(([key, value]) => readProperty(key, value, form, properties));
  const copies = BUCKET_NAMES.map((name) => [name, { ...base[name] }] as const);
  const limits = { ...Object.fromEntries(copies), iopsSize: base.iopsSize } as Mutable;
  for (const flat of [false, true]) {
    for (const property of given) if (property.flat === flat) setProperty(limits, property);
  }
  validateLimits(limits);
  return limits;
}

interface GivenProperty {
  readonly name: string;
  readonly value: number;
  /** `x-NAME`, not `limits.NAME`. */
  readonly flat: boolean;
}

function readProperty(key: string, given: OptionValue, form: 'text' | 'json', all: OptionTree): GivenProperty {
  if (key === 'limits') {
    const both = Object.keys(all).some((other) => other.startsWith('limits.'));
    throw invalid(
      both ? "Parameters 'limits.*' used inconsistently" : "Invalid parameter type for 'limits', expected: object",
    );
  }
  const flat = key.startsWith('x-');
  const name = flat ? key.slice(2) : key.startsWith('limits.') ? key.slice('limits.'.length) : '';
  if (!PROPERTIES.has(name)) throw unexpected(key, form, all);
  return { name, flat, value: readInteger(key, given, form) };
}

/** A key that is none, told by its first part that is wrong. */
function unexpected(key: string, form: 'text' | 'json', all: OptionTree): BlockError {
  const parts = key.split('.');
  const path = parts.slice(0, parts[0] === 'limits' ? 2 : 1).join('.');
  const known = PROPERTIES.has(path.replace(/^(limits\.|x-)/, '')) && path !== key && /^(limits\.|x-)/.test(path);
  if (!known) return invalid(`Parameter '${path}' is unexpected`);
  if (form === 'json') return invalid(`Invalid parameter type for '${path}', expected: integer`);
  return invalid(
    Object.hasOwn(all, path) ? `Parameters '${path}.*' used inconsistently` : `Parameters '${path}.*' are unexpected`,
  );
}

function readInteger(key: string, given: OptionValue, form: 'text' | 'json'): number {
  if (form === 'json') {
    if (typeof given === 'number' && Number.isInteger(given)) return given;
    throw invalid(`Invalid parameter type for '${key}', expected: integer`);
  }
  const match = /^[ \t\n]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)$/.exec(String(given));
  if (match === null) throw invalid(`Parameter '${key}' expects integer`);
  const [, sign, digits = ''] = match;
  const magnitude = BigInt(/^0[0-7]/.test(digits) ? `0o${digits.slice(1)}` : digits);
  const value = sign === '-' ? -magnitude : magnitude;
  if (BigInt.asIntN(64, value) !== value) throw invalid(`Parameter '${key}' expects integer`);
  return Number(value);
}

function setProperty(limits: Mutable, { name, value, flat }: GivenProperty): void {
  const property = PROPERTIES.get(name);
  if (property === undefined) return;
  const { bucket, field } = property;
  if (value < 0 && (flat || bucket === undefined)) throw invalid('Property values cannot be negative');
  if (bucket === undefined) {
    limits.iopsSize = value;
    return;
  }
  if (field === 'maxLength' && (value < 0 || value > LENGTH_MAX)) {
    // The missing blank of the flat form is how other programs print it.
    const where = flat ? `x-${name} value must be in therange` : `${name} value must be in the range`;
    throw invalid(`${where} [0, ${LENGTH_MAX}]`);
  }
  limits[bucket][field] = value;
}

/** Throws BlockError EINVAL for limits that contradict each other or are out of range. */
function validateLimits(limits: ThrottleLimits): void {
  const conflict = (['bps', 'iops'] as const).some((unit) =>
    (['average', 'max'] as const).some((field) => {
      const apart = limits[`${unit}-read`][field] !== 0 || limits[`${unit}-write`][field] !== 0;
      return limits[`${unit}-total`][field] !== 0 && apart;
    }),
  );
  if (conflict) throw invalid('bps/iops/max total values and read/write values cannot be used at the same time');
  const countsRequests = (['iops-total', 'iops-read', 'iops-write'] as const).some(
    (name) => limits[name].average !== 0,
  );
  if (limits.iopsSize !== 0 && !countsRequests) throw invalid('iops size requires an iops value to be set');
  for (const name of BUCKET_NAMES) {
    const problem = bucketProblem(limits[name]);
    if (problem !== undefined) throw invalid(problem);
  }
}

function bucketProblem({ average, max, maxLength }: BucketLimits): string | undefined {
  if ([average, max].some((value) => value < 0 || value > VALUE_MAX)) {
    return `bps/iops/max values must be within [0, ${VALUE_MAX}]`;
  }
  if (maxLength === 0) return 'the burst length cannot be 0';
  if (maxLength > 1 && max === 0) return 'burst length set without burst rate';
  if (max !== 0 && maxLength > VALUE_MAX / max) return 'burst length too high for this burst rate';
  if (max !== 0 && average === 0) return 'bps_max/iops_max require corresponding bps/iops values';
  if (max !== 0 && max < average) return 'bps_max/iops_max cannot be lower than bps/iops';
  return undefined;
}

function invalid(message: string): BlockError {
  return new BlockError('EINVAL', message);
}

/** All properties of `limits` by name, defaults too; what {@link parseLimits} takes. */
export function describeLimits(limits: ThrottleLimits): Record<string, number> {
  const described: Record<string, number> = {};
  for (const [name, { bucket, field }] of PROPERTIES) {
    described[name] = bucket === undefined ? limits.iopsSize : limits[bucket][field];
  }
  return described;
}
