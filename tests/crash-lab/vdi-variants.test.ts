/** The crash lab finds what is wrong with each of a dozen broken VDI drivers, and nothing wrong with the real one. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, describe, expect, test } from 'vitest';
import * as kit from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { root } from '../tidy/source-files.ts';
import { vdiInTheLab } from './vdi-lab.ts';
import { VARIANTS, type Variant } from './vdi-variants.ts';

const folder = mkdtempSync(join(tmpdir(), 'diskwright-variants-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The kit for testers, made of the sources with one place changed. */
async function kitWith({ file, from, to }: Variant, name: string): Promise<typeof kit> {
  let changed = 0;
  const outfile = join(folder, `${name}.cjs`);
  await build({
    absWorkingDir: root,
    entryPoints: ['src/testing/index.ts'],
    bundle: true,
    format: 'cjs',
    platform: 'node',
    target: 'node20.19',
    outfile,
    logLevel: 'silent',
    plugins: [
      {
        name: 'variant',
        setup({ onLoad }) {
          onLoad({ filter: new RegExp(`[/\\\\]formats[/\\\\]vdi[/\\\\]${file.replace('.', '\\.')}$`) }, ({ path }) => {
            const source = readFileSync(path, 'utf8');
            const contents = source.replace(from, () => to);
            changed = source.split(from).length - 1;
            return { contents, loader: 'ts' };
          });
        },
      },
    ],
  });
  expect(changed, 'the place that is changed is there once').toBe(1);
  // Past the test runner, which would take the whole text to pieces first.
  return createRequire(import.meta.url)(outfile);
}

const PLAN = longMode ? { seed: testSeed, states: 6000 } : { seed: 1, states: 1000 };

describe('the crash lab', () => {
  test('finds nothing wrong with the VDI driver', async () => {
    const report = await vdiInTheLab(kit, PLAN);
    expect(report).toMatchObject({ failed: 0 });
    expect(report.tried).toBeGreaterThan(300);
    expect(report.epochs).toBeGreaterThan(12);
  });

  for (const [i, variant] of VARIANTS.entries()) {
    test(`finds that ${variant.name}`, { timeout: 60_000 }, async () => {
      const broken = await kitWith(variant, `variant-${i}`);
      const failure = await vdiInTheLab(broken, PLAN).then(
        (report) => report,
        (error: unknown) => error,
      );
      expect(failure).toBeInstanceOf(broken.CrashConsistencyError);
      const { report, message } = failure as kit.CrashConsistencyError;
      expect(message).toContain(`seed ${PLAN.seed}`);
      expect(report.failure?.minimal).toBe(true);
      expect(report.failure?.lost.length).toBeLessThanOrEqual(2);
      if (process.env.DISKWRIGHT_SHOW) process.stderr.write(`${variant.name} (${report.tried} tried)\n${message}\n\n`);
    });
  }

  test('and its guide lists them', () => {
    const guide = readFileSync(join(root, 'docs/crash-lab.md'), 'utf8');
    expect(VARIANTS.filter(({ name }) => !guide.includes(`| ${name} |`))).toEqual([]);
  });
});
