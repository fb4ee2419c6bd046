/**
 * `npm test`: sets up what is missing, then checks types, lint and formatting, and runs all tests. The last line is
 * `N passed, N failed, N skipped`. `--long` runs the long modes; other arguments choose test files.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkNodeVersion, installPackages, root } from './install.mjs';
import { installPeers, pathWithSystemFolders } from './peers.mjs';

const args = process.argv.slice(2);
const long = args.includes('--long');
const chosen = args.filter((argument) => argument !== '--long');

const env = {
  ...process.env,
  PATH: pathWithSystemFolders(),
  ...(long
    ? { DISKWRIGHT_LONG: '1', DISKWRIGHT_SEED: process.env.DISKWRIGHT_SEED ?? String(Date.now() % 2 ** 31) }
    : {}),
};

function tool(title, name, ...toolArgs) {
  process.stdout.write(`\n== ${title}\n`);
  const path = join(root, 'node_modules/.bin', name);
  const run = spawnSync(path, toolArgs, {
    cwd: root,
    env,
    stdio: ['ignore', 1, 1],
    shell: process.platform === 'win32',
  });
  return run.status === 0;
}

/** What vitest counted; a run that ended before it wrote its report failed. */
function readReport(path, succeeded) {
  try {
    const report = JSON.parse(readFileSync(path, 'utf8'));
    const brokenFiles = report.testResults.filter(
      (file) => file.status === 'failed' && file.assertionResults.length === 0,
    );
    const failed = report.numFailedTests + brokenFiles.length;
    return {
      passed: report.numPassedTests,
      failed: succeeded ? failed : Math.max(failed, 1),
      skipped: report.numPendingTests + report.numTodoTests,
    };
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
}

function runTests() {
  const folder = mkdtempSync(join(tmpdir(), 'diskwright-report-'));
  try {
    const report = join(folder, 'report.json');
    const succeeded = tool(
      'tests',
      'vitest',
      'run',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${report}`,
      ...chosen,
    );
    return readReport(report, succeeded);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function setUp() {
  checkNodeVersion();
  installPackages();
  const { build } = await import('./build.mjs');
  await build({ types: true });
  installPeers();
}

try {
  await setUp();
  const checks =
    chosen.length > 0
      ? []
      : [tool('types', 'tsc', '--noEmit'), tool('lint and format', 'biome', 'check', '--error-on-warnings', '.')];
  const counts = runTests();
  counts.passed += checks.filter((good) => good).length;
  counts.failed += checks.filter((good) => !good).length;
  process.stdout.write(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`);
  process.exitCode = counts.failed === 0 && counts.passed > 0 ? 0 : 1;
} catch (error) {
  process.stderr.write(`npm test: ${error instanceof Error ? error.message : error}\n`);
  process.stdout.write('\n0 passed, 1 failed, 0 skipped\n');
  process.exitCode = 1;
}
