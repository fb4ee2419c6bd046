import { longMode, testSeed } from './seed.ts';

/** Runs once, before the first test file. */
export default function setUp(): void {
  process.stdout.write(`seed ${testSeed} (repeat with DISKWRIGHT_SEED=${testSeed})${longMode ? ', long mode' : ''}\n`);
}
