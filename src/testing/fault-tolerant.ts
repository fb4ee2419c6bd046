/** One call that says whether a workload copes with a disk that fails, and if not, which faults are its undoing. */
import type { Disk } from '../core/disk.ts';
import type { Action } from '../filters/blkdebug/actions.ts';
import type { StruckRequest } from '../filters/blkdebug/control.ts';
import type { RuleOptions } from '../filters/blkdebug/rules.ts';
import { minimise } from '../jobs/crash-lab/minimise.ts';
import { faultyDisk } from './faulty-disk.ts';
import type { SimHost } from './sim-host.ts';

/** What a workload is given besides the disk. */
export interface FaultRun {
  readonly seed: number;
  /** Ends all faults: what follows finds a disk that does as it is told. */
  stop(): void;
  /** Its time is simulated. */
  readonly host: SimHost;
}

/** Uses the disk, copes with its errors, and throws when something is wrong that must not be. */
export type FaultWorkload = (disk: Disk, run: FaultRun) => Promise<void>;

/** Options of {@link expectFaultTolerant}. */
export interface FaultToleranceOptions {
  /** Of the disk, bytes. */
  readonly size: number;
  /** What may go wrong; with a `probability` each seed makes other requests fail. */
  readonly rules: readonly RuleOptions[];
  /** What the disk holds at first. Default: zeroes. */
  readonly content?: Uint8Array;
  /** Of the first run; the next ones have the numbers behind it. Default 1. */
  readonly seed?: number;
  /** Default 100. */
  readonly runs?: number;
  /** Runs that may be spent on finding the fewest faults that fail. Default 200. */
  readonly tries?: number;
}

/** What was tried. */
export interface FaultToleranceReport {
  readonly runs: number;
  /** Faults that struck in all runs together: 0 shows that the rules fit nothing. */
  readonly faults: number;
}

/** A run that failed. The message has the seed and the fewest faults. */
export class FaultToleranceError extends Error {
  override readonly name = 'FaultToleranceError';
  readonly seed: number;
  /** Those that it takes; without any, the workload fails on a sound disk, too. */
  readonly faults: readonly StruckRequest[];
  /** None of the faults can be left out. False: the tries were used up. */
  readonly minimal: boolean;

  constructor(seed: number, faults: readonly StruckRequest[], minimal: boolean, cause: unknown) {
    const few = faults.length === 1 ? '1 fault is enough' : `${faults.length} faults are enough`;
    const what = faults.length === 0 ? 'it fails without any fault' : `${few}${minimal ? '' : ' (it may take fewer)'}:`;
    const text = cause instanceof Error ? cause.message : String(cause);
    super([`Not fault-tolerant (seed ${seed}); ${what}`, ...faults.map(describeFault), `fails: ${text}`].join('\n'), {
      cause,
    });
    this.seed = seed;
    this.faults = faults;
    this.minimal = minimal;
  }
}

/**
 * Runs the workload on a disk in memory that fails by the rules, with one seed after the other, and throws
 * {@link FaultToleranceError} for the first run that throws, RangeError for options out of range. The workload must do the
 * same in each run but for what the disk does. Belongs to no test runner.
 */
export async function expectFaultTolerant(
  workload: FaultWorkload,
  options: FaultToleranceOptions,
): Promise<FaultToleranceReport> {
  const { seed: first = 1, runs = 100, tries = 200 } = options;
  for (const [name, value] of Object.entries({ seed: first, runs, tries })) {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${name} must be a whole number, not ${value}`);
  }
  let faults = 0;
  for (let seed = first; seed < first + runs; seed++) {
    const struck: StruckRequest[] = [];
    const failure = await runOnce(workload, options, {
      seed,
      rules: options.rules,
      onFault: (fault) => struck.push(fault),
    });
    faults += struck.length;
    if (failure !== undefined) await explain(workload, options, { seed, struck, failure, tries });
  }
  return { runs, faults };
}

interface Plan {
  readonly seed: number;
  readonly rules?: readonly RuleOptions[];
  /** In place of rules: faults of an earlier run. */
  readonly again?: readonly StruckRequest[];
  onFault(fault: StruckRequest): void;
}

/** What a workload threw. */
interface Failure {
  readonly error: unknown;
}

async function runOnce(
  workload: FaultWorkload,
  { size, content }: FaultToleranceOptions,
  { seed, rules = [], again = [], onFault }: Plan,
): Promise<Failure | undefined> {
  const { disk, control, host } = await faultyDisk({ size, seed, rules, ...(content && { content }) });
  control.onFault = onFault;
  const actions = new Map(again.map((fault) => [fault.index, fault]));
  control.setScenario(({ index, type }) => {
    const fault = actions.get(index);
    return fault?.type === type ? fault.action : undefined;
  });
  const stop = () => {
    control.setScenario(undefined);
    for (const { id } of control.rules()) control.remove(id);
  };
  try {
    await workload(disk, { seed, stop, host });
    return undefined;
  } catch (error) {
    return { error };
  } finally {
    stop();
    await disk.close();
  }
}

/** Runs it again with fewer and fewer of the faults. */
async function explain(
  workload: FaultWorkload,
  options: FaultToleranceOptions,
  found: { seed: number; struck: readonly StruckRequest[]; failure: Failure; tries: number },
): Promise<never> {
  const { seed, struck, failure, tries } = found;
  const chosen = (left: readonly unknown[]) => struck.filter((_, i) => left[i] !== true);
  const fails = (left: readonly unknown[]) => runOnce(workload, options, { seed, again: chosen(left), onFault() {} });
  const smallest = await minimise(
    struck.map(() => false),
    fails,
    tries,
  );
  const { error } = smallest.failure ?? failure;
  throw new FaultToleranceError(seed, chosen(smallest.kept), smallest.minimal, error);
}

/** One line, e.g. `  write of 4096 bytes at 8192 (request 3): torn after 512 bytes, EIO`. */
function describeFault({ index, type, offset, length, action }: StruckRequest): string {
  const what = type === 'flush' ? 'flush' : `${type} of ${length} bytes at ${offset}`;
  return `  ${what} (request ${index}): ${describeAction(action)}`;
}

function describeAction(action: Action): string {
  switch (action.kind) {
    case 'error':
      return action.errno ?? 'no error';
    case 'delay':
      return `${Math.round(action.ms)} ms later`;
    case 'torn':
      return `torn after ${action.bytes} bytes, ${action.errno ?? 'told as done'}`;
    case 'corrupt':
      return `${action.bits.length === 1 ? 'bit' : 'bits'} ${action.bits.join(', ')} flipped`;
    case 'misdirect':
      return `lands at ${action.target}`;
    case 'drop':
      return 'told as done, never done';
    case 'reorder':
      return 'told as done, done at the next flush';
  }
}
