import { relative } from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const long = process.env.DISKWRIGHT_LONG === '1';

/** Where long files are, longest first, so that none of them is begun last and keeps one worker busy alone. */
const LONG_FIRST = ['tests/property/', 'tests/crash', 'tests/interop/', 'tests/fuzz/', 'tests/', 'src/'];

class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const path = relative(import.meta.dirname, moduleId);
      return LONG_FIRST.findIndex((folder) => path.startsWith(folder));
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'tests/**/*.test.ts'],
    globalSetup: ['tests/set-up/global.ts'],
    setupFiles: ['tests/set-up/fast-check.ts', 'tests/set-up/process.ts'],
    // Processes, not threads: tests send signals, change limits and load a native module.
    pool: 'forks',
    // Files share their worker's modules: to load all of them for each file took a quarter of the whole time.
    isolate: false,
    restoreMocks: true,
    sequence: { sequencer: LongFirst },
    maxWorkers: 2,
    testTimeout: long ? 3_600_000 : 180_000,
    hookTimeout: 180_000,
  },
});
