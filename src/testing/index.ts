/** diskwright/testing: what tests of storage software are made of. Runs wherever the library does; belongs to no test runner. */

export type { ContractCase, ContractDisk, ContractSubject } from './contract-subject.ts';
export {
  type CrashExploration,
  CrashFailure,
  type CrashPoint,
  type CrashScenario,
  type ExplorerOptions,
  exploreCrashes,
} from './crash-explorer.ts';
export { type DiskOperation, type OperationPlan, type RangeOperation, randomOperations } from './disk-operations.ts';
export { DiskTrial, TrialError, type TrialSubject } from './disk-trial.ts';
export type { DiskUnderTest } from './disk-under-test.ts';
export { driverContract } from './driver-contract.ts';
export { checkDurability, type RecordedDisk, recordDisk } from './durability.ts';
export { ContractError } from './expectations.ts';
export { ModelDisk } from './model-disk.ts';
export { SeededRandom } from './random.ts';
export type { Fault, SimFaults, SimOperation } from './sim-faults.ts';
export { SimHost, type SimHostOptions } from './sim-host.ts';
export type { FileChange, LogEntry, NameChange, SimImage } from './sim-image.ts';
export { SimBudgetError, type SimFeature, type SimSettings } from './sim-world.ts';
export { searchTrials, TrialFailure, type TrialSearch, tryOperations } from './trial-search.ts';
