/** The crash lab on SQLite: it survives every power cut with `synchronous = FULL`, and does not with `OFF`. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { Disk } from '../../src/core/disk.ts';
import { type CrashReport, type CrashState, crashLab } from '../../src/jobs/crash-lab/crash-lab.ts';
import { describeFinding } from '../../src/jobs/crash-lab/report.ts';
import { defaultGraph } from '../../src/node/index.ts';
import { longMode } from '../set-up/seed.ts';
import { checkSqlite, recordSqlite, WINDOW, whyNoSqlite } from './recorded-sqlite.ts';

const missing = whyNoSqlite();
const folder = mkdtempSync(join(tmpdir(), 'diskwright-sqlite-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let next = 0;

async function check(disk: Disk, { marks }: CrashState): Promise<void> {
  const database = join(folder, `state-${next++}`);
  try {
    writeFileSync(database, await disk.read(0, WINDOW));
    writeFileSync(`${database}-journal`, await disk.read(WINDOW, WINDOW));
    await checkSqlite(database, marks.length);
  } finally {
    rmSync(database, { force: true });
    rmSync(`${database}-journal`, { force: true });
  }
}

async function tried(synchronous: 'FULL' | 'OFF'): Promise<CrashReport> {
  const own = mkdtempSync(join(folder, synchronous));
  const files = { base: join(own, 'base'), disk: join(own, 'disk'), log: join(own, 'log') };
  await recordSqlite(own, files, { synchronous, transactions: 3 });
  const graph = defaultGraph();
  const raw = (filename: string) => graph.open({ driver: 'raw', file: { driver: 'file', filename } });
  await using base = await raw(files.base);
  await using log = await raw(files.log);
  return await crashLab({ graph, base, log, check, states: longMode ? 5000 : 200, jobs: 2 });
}

describe.skipIf(missing !== undefined)(`SQLite${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  test('survives every power cut with synchronous = FULL', { timeout: 120_000 }, async () => {
    const report = await tried('FULL');
    expect(report.failure && describeFinding(report.failure)).toBe(undefined);
    expect(report.tried).toBeGreaterThan(100);
    expect(report.epochs).toBeGreaterThan(8);
  });

  test('does not with OFF', { timeout: 120_000 }, async () => {
    const report = await tried('OFF');
    expect(report.failed).toBe(1);
    expect(report.failure?.lost.length).toBeGreaterThan(0);
    expect(report.failure?.minimal).toBe(true);
  });
});
