import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { longMode, testSeed } from './seed.ts';

/**
 * Runs once, before the first test file. All temporary files of the run go into one folder, so that tests killed in
 * the middle leave nothing either.
 */
export default function setUp(): () => void {
  process.stdout.write(`seed ${testSeed} (repeat with DISKWRIGHT_SEED=${testSeed})${longMode ? ', long mode' : ''}\n`);
  const folder = mkdtempSync(join(tmpdir(), 'diskwright-tests-'));
  process.env.TMPDIR = folder;
  return () => {
    const left = readdirSync(folder);
    if (left.length > 0) process.stdout.write(`removed what tests left behind: ${left.join(', ')}\n`);
    rmSync(folder, { recursive: true, force: true });
  };
}
