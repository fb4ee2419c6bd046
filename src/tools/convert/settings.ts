/** The options of `convert`, checked while they are read and against each other (T-CONV-2). */

import type { SnapshotChoice } from '../../core/disk-snapshots.ts';
import type { BitmapChoice } from '../../jobs/copy-bitmaps.ts';
import { type Command, type GivenOptions, readCommandLine } from '../command.ts';
import { plainNumber, sizeArgument } from '../command-line/numbers.ts';
import { OptionList } from '../command-line/option-list.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { snapshotChoice } from '../snapshots.ts';

const PARALLEL_MAX = 16;
const SPARSE_SIZE_MAX = 16 << 20;

export interface ConvertSettings {
  readonly given: GivenOptions;
  readonly options: OptionList;
  readonly sparseSize: number;
  /** Bytes per second. */
  readonly rateLimit: number | undefined;
  readonly parallel: number;
  /** Of the source. */
  readonly snapshot: SnapshotChoice | undefined;
}

/** Reads and checks the options. Throws Failure in the order of T-CONV-2. */
export function readSettings(context: Context, command: Command): ConvertSettings {
  const options = new OptionList();
  let sparseSize = 4096;
  let rateLimit: number | undefined;
  let parallel = 8;
  let snapshot: SnapshotChoice | undefined;
  const given = readCommandLine(context, command, {
    o: (value) => options.add(value),
    S: (value) => {
      sparseSize = parseSparseSize(value);
    },
    r: (value) => {
      rateLimit = sizeArgument('rate limit', value);
    },
    m: (value) => {
      parallel = parseParallel(value);
    },
    l: (value) => {
      snapshot = snapshotChoice(value, (message, hint) => context.messages.warning(message, hint));
    },
  });
  refuseCombinations(given);
  return { given, options, sparseSize, rateLimit, parallel, snapshot };
}

function parseSparseSize(text: string): number {
  const size = sizeArgument('buffer size for sparse output', text);
  if (size % 512 === 0 && size <= SPARSE_SIZE_MAX) return size;
  throw new Failure(
    `Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to ${SPARSE_SIZE_MAX}. ` +
      'Select 0 to disable sparse detection (fully allocates output).',
  );
}

function parseParallel(text: string): number {
  const count = plainNumber(text);
  if (count !== undefined && count >= 1 && count <= PARALLEL_MAX) return count;
  throw new Failure(`Invalid number of coroutines. Allowed number of coroutines is between 1 and ${PARALLEL_MAX}`);
}

/** Options that contradict each other, in the order of T-CONV-2. */
function refuseCombinations(given: GivenOptions): void {
  const refusals: readonly (readonly [boolean, string])[] = [
    [given.has('skip-broken-bitmaps') && !given.has('bitmaps'), 'Use of --skip-broken-bitmaps requires --bitmaps'],
    [given.has('C') && given.has('c'), 'Cannot enable copy offloading when -c is used'],
    [given.has('C') && given.has('S'), 'Cannot enable copy offloading when -S is used'],
    [given.has('C') && given.has('salvage'), 'Cannot use copy offloading in salvaging mode'],
    [given.has('target-image-opts') && !given.has('n'), '--target-image-opts requires use of -n flag'],
    [given.has('o') && given.has('n'), '-o has no effect when skipping image creation'],
    [given.has('flatten') && given.has('B'), '--flatten and -B exclude each other'],
    [given.has('target-is-zero') && !given.has('n'), '--target-is-zero requires use of -n flag'],
  ];
  const refused = refusals.find(([applies]) => applies);
  if (refused !== undefined) throw new Failure(refused[1]);
}

/** What `--bitmaps` asks for. */
export function chosenBitmaps(given: GivenOptions): BitmapChoice | undefined {
  if (!given.has('bitmaps')) return undefined;
  return given.has('skip-broken-bitmaps') ? 'consistent' : 'all';
}
