/** Getting ready for work on large files while the command is still opening them. */
import { stat } from 'node:fs';
import { WORTHWHILE } from '../jobs/bulk-lanes.ts';
import { expectBulkWork } from '../node/bulk.ts';

/** Bytes of a block as file systems count them. */
const BLOCK = 512;

/** Bytes of bytecode that a function runs before V8 optimises it: some forty times as many as without this. */
const INTERRUPT_BUDGET = 5_000_000;

/**
 * Starts the thread that a job over all that these files store will ask for, as soon as it is known that they are large:
 * nothing is waited for, as a file may lie on storage that does not answer. Names of anything else are no matter.
 */
export function expectLargeWork(names: readonly string[]): void {
  let stored = 0;
  for (const name of names) {
    // What is wrong with a name is told by who opens it.
    stat(name, (error, stats) => {
      if (error || !stats.isFile()) return;
      stored += stats.blocks * BLOCK;
      if (stored >= WORTHWHILE) expectBulkWork(optimiseLater);
    });
  }
}

/**
 * Optimising what runs a few thousand times takes longer than it saves, while both threads are busy. V8 refuses the compiled
 * form of Node's own modules from then on, so this waits until the thread has loaded what it needs of them.
 */
function optimiseLater(): void {
  // V8 12, of Node.js 22, has no such flag, and would say so on standard error.
  if (Number.parseInt(process.versions.v8, 10) > 11) return;
  process.getBuiltinModule('node:v8').setFlagsFromString(`--interrupt-budget=${INTERRUPT_BUDGET}`);
}
