import { defineConfig } from 'vitest/config';

const long = process.env.DISKWRIGHT_LONG === '1';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'tests/**/*.test.ts'],
    globalSetup: ['tests/set-up/global.ts'],
    setupFiles: ['tests/set-up/fast-check.ts'],
    // Processes, not threads: tests send signals, change limits and load a native module.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: long ? 3_600_000 : 180_000,
    hookTimeout: 180_000,
  },
});
