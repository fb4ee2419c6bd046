/** Looks for operations that make a disk differ from the model, and cuts what it finds down to the least. */
import { type DiskOperation, type OperationPlan, randomOperations } from './disk-operations.ts';
import { DiskTrial, type TrialSubject } from './disk-trial.ts';

/** Random sequences, and the disks that they are tried on. */
export interface TrialSearch {
  /** A fresh disk for every sequence; `seed` may choose its kind. */
  make(seed: number): Promise<TrialSubject>;
  readonly plan: OperationPlan | ((seed: number) => OperationPlan);
  readonly firstSeed?: number;
  readonly sequences: number;
}

/** Operations that make a disk and its model differ. */
export class TrialFailure extends Error {
  override readonly name = 'TrialFailure';
  readonly seed: number;
  readonly operations: readonly DiskOperation[];

  constructor(seed: number, operations: readonly DiskOperation[], cause: unknown) {
    const lines = operations.map((operation) => `  ${JSON.stringify(operation)},`);
    const reason = cause instanceof Error ? cause.message : String(cause);
    super(`seed ${seed}, cut down to ${operations.length} operations: ${reason}\n${lines.join('\n')}`, { cause });
    this.seed = seed;
    this.operations = operations;
  }
}

/** Runs one sequence; the error it ends with, if any. */
export async function tryOperations(
  subject: TrialSubject,
  operations: readonly DiskOperation[],
): Promise<{ cause: unknown } | undefined> {
  let trial: DiskTrial | undefined;
  try {
    trial = await DiskTrial.start(subject);
    for (const operation of operations) await trial.run(operation);
    await trial.finish();
    return undefined;
  } catch (cause) {
    await trial?.abandon();
    return { cause };
  }
}

/** Throws a {@link TrialFailure} for the first seed that shows a difference. Resolves with the number of operations run. */
export async function searchTrials(search: TrialSearch): Promise<number> {
  let run = 0;
  const first = search.firstSeed ?? 1;
  for (let seed = first; seed < first + search.sequences; seed++) {
    const plan = typeof search.plan === 'function' ? search.plan(seed) : search.plan;
    const operations = randomOperations(seed, plan);
    run += operations.length;
    const problem = await tryOperations(await search.make(seed), operations);
    if (problem !== undefined) throw await reduce(search, seed, operations, problem.cause);
  }
  return run;
}

/** Leaves out halves, quarters, … single operations as long as some failure remains. */
async function reduce(
  search: TrialSearch,
  seed: number,
  failing: readonly DiskOperation[],
  firstCause: unknown,
): Promise<TrialFailure> {
  let operations = [...failing];
  let cause = firstCause;
  for (let size = Math.ceil(operations.length / 2); size >= 1; ) {
    let removed = false;
    for (let start = 0; start < operations.length; ) {
      const fewer = operations.toSpliced(start, size);
      const problem = await tryOperations(await search.make(seed), fewer);
      if (problem === undefined) start += size;
      else {
        operations = fewer;
        cause = problem.cause;
        removed = true;
      }
    }
    if (size > 1) size = Math.ceil(size / 2);
    else if (!removed) break;
  }
  return new TrialFailure(seed, operations, cause);
}
