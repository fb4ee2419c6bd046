/** diskwright/testing: what tests of storage software are made of. Runs wherever the library does; belongs to no test runner. */

export { SeededRandom } from '../bytes/random.ts';
export type { Action, Scenario, ScenarioRequest } from '../filters/blkdebug/actions.ts';
export { type Blkdebug, blkdebugOf, type StruckRequest } from '../filters/blkdebug/control.ts';
export type { LiveRule } from '../filters/blkdebug/engine.ts';
export type { RuleOptions } from '../filters/blkdebug/rules.ts';
export { type MismatchDetails, MismatchError } from '../filters/blkverify/mismatch.ts';
export { blkverifyOf } from '../filters/blkverify/node.ts';
export type { Verifier, VerifyCounts } from '../filters/blkverify/verifier.ts';
export { mark as markLog } from '../filters/log/node.ts';
export {
  CannotCheck,
  type CrashFinding,
  type CrashLabOptions,
  type CrashReport,
  type CrashState,
  crashLab,
} from '../jobs/crash-lab/crash-lab.ts';
export { describeFinding, describeReport, type LostChange } from '../jobs/crash-lab/report.ts';
export { logEntries, type ReplayOptions, type ReplayResult, replay as replayLog } from '../jobs/replay.ts';
export type { ContractCase, ContractDisk, ContractSubject } from './contract-subject.ts';
export {
  type CrashCheck,
  CrashConsistencyError,
  type CrashConsistencyOptions,
  expectCrashConsistent,
  type RecordedWorkload,
} from './crash-consistent.ts';
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
export {
  expectFaultTolerant,
  type FaultRun,
  FaultToleranceError,
  type FaultToleranceOptions,
  type FaultToleranceReport,
  type FaultWorkload,
} from './fault-tolerant.ts';
export { type FaultyDisk, type FaultyDiskOptions, faultyDisk } from './faulty-disk.ts';
export { ModelDisk } from './model-disk.ts';
export type { Fault, SimFaults, SimOperation } from './sim-faults.ts';
export { SimHost, type SimHostOptions } from './sim-host.ts';
export type { FileChange, LogEntry, NameChange, SimImage } from './sim-image.ts';
export { SimBudgetError, type SimFeature, type SimSettings } from './sim-world.ts';
export { searchTrials, TrialFailure, type TrialSearch, tryOperations } from './trial-search.ts';
