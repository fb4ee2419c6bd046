/** Getting ready for work on large files while the command is still opening them. */
import { statSync } from 'node:fs';
import { WORTHWHILE } from '../jobs/bulk-lanes.ts';
import { expectBulkWork } from '../node/bulk.ts';

/** Bytes of a block as file systems count them. */
const BLOCK = 512;

/** Starts the thread that a job over all that these files store will ask for. Names of anything else are no matter. */
export function expectLargeWork(names: readonly string[]): void {
  let stored = 0;
  for (const name of names) {
    try {
      const stats = statSync(name);
      if (stats.isFile()) stored += stats.blocks * BLOCK;
    } catch {
      // Not a file's name, or what is wrong with it is told by who opens it.
    }
  }
  if (stored >= WORTHWHILE) expectBulkWork();
}
