/**
 * The contract that every driver keeps, as cases for any test runner:
 *
 *     for (const { name, run } of driverContract(subject)) test(name, run);
 *
 * What a driver says it cannot do (ENOTSUP) is not held against it.
 */
import { changeCases, statusCases } from './contract-changes.ts';
import { lifeCases } from './contract-life.ts';
import { requestCases, writeCases } from './contract-requests.ts';
import type { CaseContext, CaseTable, ContractCase, ContractSubject } from './contract-subject.ts';
import { expectThat } from './expectations.ts';
import { searchTrials } from './trial-search.ts';

/** The cases that every driver must pass, for any test runner: each has a name and a function `run` that throws. */
export function driverContract(subject: ContractSubject): ContractCase[] {
  const tables: CaseTable[] = [requestCases, statusCases, lifeCases];
  if (!subject.forgetful) tables.push(writeCases, changeCases);
  const cases = tables.flatMap((table) =>
    Object.entries(table).map(([name, run]) => ({
      name: `${subject.name}: ${name}`,
      run: () => withDisk(subject, run),
    })),
  );
  if (!subject.forgetful) {
    cases.push({ name: `${subject.name}: does as a plain array of bytes does`, run: () => compareWithModel(subject) });
  }
  return cases;
}

/** Some cases write up to 20,000 bytes, however small the blocks are. */
const LEAST_BLOCK = 4096;

function roundUp(length: number, unit: number): number {
  return Math.ceil(length / unit) * unit;
}

async function withDisk(subject: ContractSubject, run: (context: CaseContext) => Promise<void>): Promise<void> {
  const blockSize = subject.blockSize ?? 4096;
  const length = roundUp(Math.max(blockSize, LEAST_BLOCK) * 5 + 1500, subject.lengthUnit ?? 1);
  const made = await subject.make(length);
  try {
    const disk = await made.open({ writable: true });
    let current = disk;
    const reopen: CaseContext['reopen'] = async (options = {}) => {
      await current.close();
      current = await made.open(options);
      return current;
    };
    try {
      await run({ subject, made, disk, blockSize, length, reopen });
    } finally {
      await current.close();
    }
    expectThat((made.openFiles?.() ?? []).length === 0, `still open: ${made.openFiles?.().join(', ')}`);
  } finally {
    await made.dispose?.();
  }
}

async function compareWithModel(subject: ContractSubject): Promise<void> {
  const blockSize = subject.blockSize ?? 4096;
  const unit = subject.lengthUnit ?? 1;
  const length = roundUp(blockSize * 6 + 777, unit);
  const resizable = await canResize(subject, length, unit);
  await searchTrials({
    async make() {
      const made = await subject.make(length);
      return { open: () => made.open({ writable: true }), finish: async () => await made.dispose?.() };
    },
    plan: {
      count: 40,
      length,
      blockSize,
      longest: Math.min(blockSize * 2.5, blockSize + 65536),
      ...(resizable ? { resize: { min: 0, max: length + 2 * blockSize, step: unit } } : {}),
      ...(subject.persistent === false ? { weights: { reopen: 0 } } : {}),
    },
    sequences: subject.sequences ?? 20,
  });
}

async function canResize(subject: ContractSubject, length: number, unit: number): Promise<boolean> {
  const made = await subject.make(length);
  const disk = await made.open({ writable: true });
  try {
    await disk.resize(length + unit);
    await disk.resize(length, { shrink: true });
    return true;
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ENOTSUP') return false;
    throw error;
  } finally {
    await disk.close();
    await made.dispose?.();
  }
}
