/** qemu-nbd's command line, read in its order and refused in its words (N-117). */
import { type CacheMode, cacheSettings, type DiscardMode, discardMode } from '../../core/cache.ts';
import type { SnapshotChoice } from '../../core/disk-snapshots.ts';
import { BlockError } from '../../core/errors.ts';
import { parseBoolOption, parseInteger } from '../../core/options.ts';
import type { ExportOptions } from '../../nbd/server/export.ts';
import { keyValues } from '../command-line/arguments.ts';
import { Getopt } from '../command-line/getopt.ts';
import { plainNumber, secondsArgument } from '../command-line/numbers.ts';
import type { ObjectList } from '../command-line/objects.ts';
import { traceArgument } from '../command-line/trace.ts';
import { Failure, HelpRequest } from '../failure.ts';
import type { Messages } from '../output/stream.ts';
import { snapshotChoice } from '../snapshots.ts';
import { OPTIONS } from './options.ts';

/** What one `--export` asks for. */
export interface ExportArgument {
  /** An image; absent: `node`, or the command's FILE. */
  readonly file: string | undefined;
  readonly node: string | undefined;
  readonly format: string | undefined;
  readonly options: ExportOptions;
}

export interface NbdArguments {
  readonly list: boolean;
  readonly operands: readonly string[];
  readonly given: ReadonlyMap<string, string>;
  readonly bitmaps: readonly string[];
  readonly exports: readonly ExportArgument[];
  readonly shared: number;
  /** Bytes, below 2^64. */
  readonly offset: bigint;
  /** Inside the image; what is exported, for reading only. */
  readonly loadSnapshot: SnapshotChoice | undefined;
  readonly cache: CacheMode;
  readonly discard: DiscardMode;
  readonly detectZeroes: 'off' | 'on' | 'unmap';
  /** Milliseconds. */
  readonly times: { readonly handshake: number; readonly idle: number; readonly grace: number };
}

/** Ends the program with help or version instead. */
export class TextRequest extends Error {
  override readonly name = 'TextRequest';
  readonly kind: 'help' | 'version';

  constructor(kind: 'help' | 'version') {
    super(kind);
    this.kind = kind;
  }
}

const STRING_MAX = 4096;

/** Options that only make sense with an image. */
const PER_DEVICE = [
  'export-name',
  'description',
  'allocation-depth',
  'bitmap',
  'offset',
  'format',
  'load-snapshot',
  'cache',
  'nocache',
  'discard',
  'detect-zeroes',
  'aio',
  'connect',
  'export',
  'stdio',
];

/** Throws Failure, TextRequest. */
export function readArguments(words: readonly string[], objects: ObjectList, messages: Messages): NbdArguments {
  const reader = new ArgumentReader(objects, messages);
  const getopt = new Getopt(['qemu-nbd', ...words], OPTIONS, {
    stopAtOperand: process.env.POSIXLY_CORRECT !== undefined,
  });
  for (let parsed = getopt.next(); parsed !== undefined; parsed = getopt.next()) {
    if (parsed.kind !== 'option') {
      const continuation = `Try \`${messages.program} --help' for more information.`;
      throw new Failure(parsed.detail, { continuation });
    }
    reader.take(parsed.key, parsed.value);
  }
  return reader.finish(getopt.operands());
}

class ArgumentReader {
  readonly #objects: ObjectList;
  readonly #messages: Messages;
  readonly #given = new Map<string, string>();
  readonly #bitmaps: string[] = [];
  readonly #exports: ExportArgument[] = [];
  #shared = 1;
  #offset = 0n;
  #loadSnapshot: SnapshotChoice | undefined;
  #cache: CacheMode | undefined;
  #discard: DiscardMode | undefined;
  #aio: string | undefined;
  #detectZeroes: 'off' | 'on' | 'unmap' = 'off';

  constructor(objects: ObjectList, messages: Messages) {
    this.#objects = objects;
    this.#messages = messages;
  }

  take(key: string, value: string): void {
    this.#given.set(key, value);
    const handlers: Readonly<Record<string, () => void>> = {
      help: () => {
        throw new TextRequest('help');
      },
      version: () => {
        throw new TextRequest('version');
      },
      object: () => this.#objects.add(value),
      trace: () => {
        // There are no events to list.
        if (value === 'help') throw new HelpRequest('');
        traceArgument(value, this.#messages);
      },
      nocache: () => this.#setCache('none'),
      cache: () => this.#setCache(value),
      discard: () => this.#setDiscard(value),
      'detect-zeroes': () => this.#setDetectZeroes(value),
      aio: () => {
        if (this.#aio !== undefined) throw new Failure('--aio can only be specified once');
        this.#aio = value;
        if (!['native', 'io_uring', 'threads'].includes(value)) throw new Failure(`Invalid aio mode '${value}'`);
      },
      shared: () => {
        this.#shared = wholeNumber(value, 2 ** 31 - 1) ?? refuse(`Invalid shared device number '${value}'`);
      },
      offset: () => {
        this.#offset = offsetArgument(value);
      },
      bitmap: () => void this.#bitmaps.push(value),
      export: () => void this.#exports.push(exportArgument(value, this.#messages)),
      'export-name': () => checkLength('export name', value),
      description: () => checkLength('export description', value),
      'load-snapshot': () => {
        this.#loadSnapshot = snapshotChoice(value, (message, hint) => this.#messages.warning(message, hint), "`'");
      },
    };
    handlers[key]?.();
  }

  finish(operands: readonly string[]): NbdArguments {
    const given = this.#given;
    const list = given.has('list');
    if (list) this.#checkList(operands);
    else this.#checkOperands(operands);
    const elsewhere = ['socket', 'port', 'bind', 'fork'].find((key) => given.has(key));
    if (given.has('stdio') && elsewhere !== undefined) throw new Failure(`--stdio is incompatible with --${elsewhere}`);
    const seconds = (key: string, fallback: number) => {
      const text = given.get(key);
      return text === undefined ? fallback * 1000 : secondsArgument(key, text);
    };
    return {
      list,
      operands,
      given,
      bitmaps: this.#bitmaps,
      exports: this.#exports,
      shared: this.#shared,
      offset: this.#offset,
      loadSnapshot: this.#loadSnapshot,
      cache: this.#cache ?? 'writeback',
      discard: this.#discard ?? 'ignore',
      detectZeroes: this.#detectZeroes,
      times: {
        handshake: seconds('handshake-timeout', 10),
        idle: seconds('idle-timeout', 0),
        grace: seconds('grace', 5),
      },
    };
  }

  #checkList(operands: readonly string[]): void {
    if (operands.length > 0) throw new Failure('List mode is incompatible with a file name');
    if (PER_DEVICE.some((key) => this.#given.has(key))) {
      throw new Failure('List mode is incompatible with per-device settings');
    }
    if (this.#given.has('fork')) throw new Failure('List mode is incompatible with forking');
  }

  #checkOperands(operands: readonly string[]): void {
    const images = operands.length;
    const wanted = this.#exports.length > 0 && this.#exports.every(({ file }) => file !== undefined) ? [0, 1] : [1];
    if (wanted.includes(images)) return;
    const continuation = `Try \`${this.#messages.program} --help' for more information.`;
    throw new Failure('Invalid number of arguments', { hint: continuation });
  }

  #setCache(text: string): void {
    if (this.#cache !== undefined) throw new Failure('-n and --cache can only be specified once');
    if (cacheSettings(text) === undefined) throw new Failure(`Invalid cache mode \`${text}'`);
    this.#cache = text as CacheMode;
  }

  #setDiscard(text: string): void {
    if (this.#discard !== undefined) throw new Failure('--discard can only be specified once');
    this.#discard = discardMode(text) ?? refuse(`Invalid discard mode \`${text}'`);
  }

  #setDetectZeroes(text: string): void {
    if (text !== 'off' && text !== 'on' && text !== 'unmap') {
      throw new Failure(`Failed to parse detect_zeroes mode: invalid parameter value: ${text}`);
    }
    if (text === 'unmap' && this.#discard !== 'unmap') {
      throw new Failure('setting detect-zeroes to unmap is not allowed without setting discard operation to unmap');
    }
    this.#detectZeroes = text;
  }
}

function refuse(text: string): never {
  throw new Failure(text);
}

/** As C's strtoull reads it: a number with a minus sign counts down from 2^64. */
function offsetArgument(text: string): bigint {
  try {
    return BigInt.asUintN(64, parseInteger(text, 'offset'));
  } catch {
    throw new Failure(`Invalid offset '${text}'`);
  }
}

/** A whole number from 0; undefined for anything else. */
function wholeNumber(text: string, max: number): number | undefined {
  const number = plainNumber(text);
  return number !== undefined && number <= max ? number : undefined;
}

function checkLength(what: string, text: string): void {
  if (Buffer.byteLength(text) > STRING_MAX) throw new Failure(`${what} '${text}' too long`);
}

function exportArgument(text: string, messages: Messages): ExportArgument {
  const bitmaps: string[] = [];
  const values = new Map<string, string>();
  for (const [key, value] of keyValues(text, 'name', (message, hint) => messages.warning(message, hint))) {
    if (key === 'bitmap') bitmaps.push(value);
    else if (EXPORT_KEYS.has(key)) values.set(key, value);
    else throw new Failure(`Invalid parameter '${key}'`);
  }
  const number = (key: string) => {
    const value = values.get(key);
    return value === undefined
      ? undefined
      : (wholeNumber(value, Number.MAX_SAFE_INTEGER) ?? refuse(`Invalid ${key} '${value}'`));
  };
  const readOnly = values.get('read-only');
  const options = {
    name: values.get('name') ?? '',
    description: values.get('description') ?? '',
    bitmaps,
    ...(readOnly !== undefined && { readOnly: boolOf(readOnly, 'read-only') }),
    ...defined({ offset: number('offset'), size: number('size') }),
  };
  checkLength('export name', options.name);
  checkLength('export description', options.description);
  return { file: values.get('file'), node: values.get('node'), format: values.get('format'), options };
}

const EXPORT_KEYS = new Set(['name', 'file', 'node', 'format', 'description', 'read-only', 'offset', 'size']);

function boolOf(text: string, key: string): boolean {
  try {
    return parseBoolOption(text, key);
  } catch (error) {
    throw error instanceof BlockError ? new Failure(error.message) : error;
  }
}

function defined<T extends object>(values: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: NonNullable<T[K]>;
  };
}
