import { describe, expect, test } from 'vitest';
import { SeededRandom } from '../../bytes/random.ts';
import type { Disk } from '../../core/disk.ts';
import { Graph } from '../../core/graph.ts';
import { DRIVERS } from '../../drivers.ts';
import { encodeEntry, encodeSuper, type LogEntry } from '../../filters/log/format.ts';
import { SimHost } from '../../testing/index.ts';
import { CannotCheck, type CrashLabOptions, type CrashState, crashLab } from './crash-lab.ts';
import { describeFinding, describeReport } from './report.ts';

const SECTOR = 512;
const SIZE = 8 * SECTOR;

type Step =
  | {
      readonly write: number;
      readonly count?: number;
      readonly value: number;
      readonly fua?: boolean;
      readonly flush?: boolean;
    }
  | { readonly discard: number; readonly count: number }
  | 'flush'
  | { readonly mark: string };

function entryOf(step: Step): LogEntry {
  if (step === 'flush') return { kind: 'flush' };
  if ('mark' in step) return { kind: 'mark', name: step.mark };
  if ('discard' in step) return { kind: 'discard', offset: step.discard * SECTOR, length: step.count * SECTOR };
  const { write, count = 1, fua = false, flush = false } = step;
  return { kind: 'write', offset: write * SECTOR, length: count * SECTOR, fua, flush };
}

/** Each sector of a write holds its value. */
function logBytes(steps: readonly Step[]): Uint8Array {
  const parts = [encodeSuper({ entries: steps.length, sectorSize: SECTOR })];
  for (const step of steps) {
    const entry = entryOf(step);
    parts.push(encodeEntry(entry, SECTOR));
    if (entry.kind === 'write') parts.push(new Uint8Array(entry.length).fill((step as { value: number }).value));
  }
  return new Uint8Array(Buffer.concat(parts));
}

interface Subject {
  readonly options: Pick<CrashLabOptions, 'graph' | 'log' | 'base'>;
}

async function subject(steps: readonly Step[]): Promise<Subject['options']> {
  const host = new SimHost({ record: false });
  host.put('/log', logBytes(steps));
  host.put('/base', new Uint8Array(SIZE).fill(255));
  const graph = new Graph({ host, drivers: DRIVERS });
  const raw = (filename: string) => graph.open({ driver: 'raw', file: { driver: 'file', filename } });
  return { graph, log: await raw('/log'), base: await raw('/base') };
}

/** The value of each sector, and how many marks came before. */
async function shortly(disk: Disk, { marks }: CrashState): Promise<string> {
  const bytes = await disk.read(0, SIZE);
  const values = Array.from({ length: SIZE / SECTOR }, (_, i) => {
    const sector = bytes.subarray(i * SECTOR, (i + 1) * SECTOR);
    if (sector.some((byte) => byte !== sector[0])) throw new CannotCheck('a sector is torn');
    return sector[0];
  });
  return `${marks.length}: ${values.join(' ')}`;
}

/** All states, found the simplest way: each moment, each subset of what is not certain, sector by sector. */
function allStates(steps: readonly Step[]): Set<string> {
  const found = new Set<string>();
  for (let cut = 0; cut <= steps.length; cut++) {
    const done = steps.slice(0, cut);
    const marks = done.filter((step) => step !== 'flush' && 'mark' in step).length;
    let lastFlush = -1;
    for (const [i, step] of done.entries()) {
      if (step === 'flush' || ('write' in step && step.flush)) lastFlush = i;
    }
    // A write that asks for a flush comes behind it; what is being done at the cut is never certain.
    const parts: { sector: number; value: number; certain: boolean }[][] = [];
    for (const [i, step] of done.entries()) {
      if (step === 'flush' || 'mark' in step) continue;
      const flushed = i < lastFlush;
      if ('discard' in step) {
        parts.push(
          Array.from({ length: step.count }, (_, k) => ({ sector: step.discard + k, value: 0, certain: flushed })),
        );
      } else {
        const certain = flushed || (step.fua === true && i < cut - 1);
        for (let k = 0; k < (step.count ?? 1); k++)
          parts.push([{ sector: step.write + k, value: step.value, certain }]);
      }
    }
    const open = parts.filter((part) => part[0]?.certain === false).length;
    for (let bits = 0; bits < 2 ** open; bits++) {
      const disk = new Array<number>(SIZE / SECTOR).fill(255);
      let bit = 0;
      for (const part of parts) {
        if (part[0]?.certain === false && ((bits >> bit++) & 1) === 0) continue;
        for (const { sector, value } of part) disk[sector] = value;
      }
      found.add(`${marks}: ${disk.join(' ')}`);
    }
  }
  return found;
}

function randomSteps(random: SeededRandom): Step[] {
  const steps: Step[] = [];
  for (let i = random.between(3, 12); i > 0; i--) {
    const at = random.below(6);
    const kind = random.below(8);
    if (kind === 0) steps.push({ mark: `m${i}` });
    else if (kind <= 2) steps.push('flush');
    else if (kind === 3) steps.push({ discard: at, count: random.between(1, 2) });
    else {
      const flags = { fua: random.chance(0.2), flush: random.chance(0.1) };
      steps.push({ write: at, count: random.between(1, 2), value: random.below(4), ...flags });
    }
  }
  return steps;
}

describe('states', () => {
  test('are all that there are, and each once', async () => {
    const random = new SeededRandom(5);
    for (let run = 0; run < 60; run++) {
      const steps = randomSteps(random);
      const seen: string[] = [];
      const check = async (disk: Disk, state: CrashState) => void seen.push(await shortly(disk, state));
      const report = await crashLab({ ...(await subject(steps)), check, states: 1 << 24 });
      expect(report.exhaustive).toBe(true);
      expect(seen.length).toBe(report.tried);
      expect([...new Set(seen)].sort()).toEqual([...allStates(steps)].sort());
      expect(new Set(seen).size).toBe(seen.length);
    }
  });

  test('that are chosen are of those, each once, and the same for one seed', async () => {
    const steps: Step[] = [];
    for (let i = 0; i < 14; i++) steps.push({ write: i % 7, count: 2, value: i });
    steps.splice(7, 0, 'flush', { mark: 'half' });
    const all = allStates(steps);
    const runs: string[][] = [];
    for (const seed of [1, 1, 2]) {
      const seen: string[] = [];
      const check = async (disk: Disk, state: CrashState) => void seen.push(await shortly(disk, state));
      const report = await crashLab({ ...(await subject(steps)), check, states: 60, seed });
      expect(report).toMatchObject({ exhaustive: false, seed, tried: seen.length, epochs: 2, changes: 14 });
      expect(seen.length).toBeGreaterThan(50);
      expect(seen.length).toBeLessThanOrEqual(60);
      expect(new Set(seen).size).toBe(seen.length);
      expect(seen.filter((state) => !all.has(state))).toEqual([]);
      runs.push(seen);
    }
    expect(runs[0]).toEqual(runs[1]);
    expect(runs[0]).not.toEqual(runs[2]);
  });

  test('tear no more than the disk does', async () => {
    const seen = new Set<string>();
    await crashLab({
      ...(await subject([{ write: 1, count: 4, value: 7 }])),
      atomic: 2048,
      async check(disk, state) {
        seen.add(await shortly(disk, state));
      },
    });
    expect([...seen].sort()).toEqual([
      '0: 255 255 255 255 255 255 255 255',
      '0: 255 255 255 255 7 255 255 255',
      '0: 255 7 7 7 255 255 255 255',
      '0: 255 7 7 7 7 255 255 255',
    ]);
  });

  test('can be written by their check, and do not see each other', async () => {
    const { tried } = await crashLab({
      ...(await subject([{ write: 0, value: 1 }, 'flush', { write: 1, value: 2 }])),
      jobs: 3,
      async check(disk) {
        expect((await disk.read(7 * SECTOR, 3))[1]).toBe(255);
        await disk.write(7 * SECTOR + 1, new Uint8Array(1));
        await disk.writeZeroes(6 * SECTOR, SECTOR);
        expect([...(await disk.read(7 * SECTOR - 1, 4))]).toEqual([0, 255, 0, 255]);
      },
    });
    expect(tried).toBe(3);
  });
});

describe('failures', () => {
  /** The second and the fifth of eight writes must not be lost together, once the last is there. */
  const steps: Step[] = Array.from({ length: 8 }, (_, i) => ({ write: i, value: i + 1 }));
  const check = async (disk: Disk) => {
    const bytes = await disk.read(0, SIZE);
    const last = bytes[7 * SECTOR] === 8;
    if (last && bytes[SECTOR] === 255 && bytes[4 * SECTOR] === 255) throw new Error('both are gone');
  };

  test('are cut down to the fewest losses, and told with what was lost', async () => {
    const report = await crashLab({ ...(await subject([{ mark: 'begin' }, ...steps])), check });
    expect(report.failed).toBe(1);
    expect(report.failure).toMatchObject({ minimal: true, unflushed: 8, marks: ['begin'] });
    expect(report.failure && describeFinding(report.failure)).toBe(
      [
        "Power cut after 9 entries of the log, after mark 'begin'; of 8 changes since the last flush 2 are lost:",
        '  write of 512 bytes at 512 (entry 2)',
        '  write of 512 bytes at 2048 (entry 5)',
        'fails: both are gone',
      ].join('\n'),
    );
    const disk = await report.failure?.open();
    expect((await disk?.read(0, SIZE))?.filter((byte) => byte === 255).length).toBe(2 * SECTOR);
  });

  test('are the same however many checks run at a time', async () => {
    const texts = new Set<string>();
    for (const jobs of [1, 2, 7]) {
      const report = await crashLab({ ...(await subject(steps)), check, jobs, seed: 4, states: 100 });
      texts.add(JSON.stringify(report));
    }
    expect(texts.size).toBe(1);
  });

  test('are counted when the lab is to go on', async () => {
    const report = await crashLab({ ...(await subject(steps)), check, keepGoing: true, jobs: 2 });
    expect(report).toMatchObject({ tried: 256, failed: 32, exhaustive: true });
    expect(describeReport(report)).toBe(
      '256 states of 8 changes in 1 epoch tried, all there are (atomic 512): 32 failed',
    );
  });

  test('of torn writes name the parts', async () => {
    const report = await crashLab({
      ...(await subject([{ write: 0, count: 4, value: 1 }])),
      async check(disk) {
        const bytes = await disk.read(0, 4 * SECTOR);
        if (bytes[0] === 1 && bytes[2 * SECTOR] === 255) throw new Error('torn');
      },
    });
    expect(report.failure && describeFinding(report.failure)).toContain(
      'one is lost:\n  write of 2048 bytes at 0 (entry 0), of it: 512 at 1024\n',
    );
  });

  test('are also a check that does not end in time, and a state that does not open', async () => {
    const slow = await crashLab({ ...(await subject(steps)), check: () => new Promise(() => {}), timeoutMs: 50 });
    expect(slow.failure?.cause).toMatchObject({ code: 'ETIMEDOUT', message: 'The check did not end within 50 ms' });
    const other = await crashLab({ ...(await subject(steps)), check: () => {}, format: 'vdi' });
    expect(other.failure).toMatchObject({ state: 0, lost: [], cause: { code: 'ENOTSUP' } });
  });
});

describe('trouble', () => {
  test('a check that cannot be made ends the lab with its cause', async () => {
    const cause = new Error('no such program');
    const check = () => {
      throw new CannotCheck('cannot check', { cause });
    };
    await expect(crashLab({ ...(await subject(['flush'])), check, jobs: 2 })).rejects.toBe(cause);
  });

  test('an aborted signal ends it with its reason', async () => {
    const controller = new AbortController();
    const check = (_disk: Disk, { index, signal }: CrashState) => {
      if (index === 2) controller.abort(new Error('enough'));
      if (index === 2) expect(signal.aborted).toBe(true);
    };
    const steps: Step[] = [{ write: 0, count: 4, value: 3 }];
    const run = crashLab({ ...(await subject(steps)), check, signal: controller.signal });
    await expect(run).rejects.toThrow('enough');
  });

  test('what is no log, and options out of range, are refused', async () => {
    const made = await subject([]);
    await expect(crashLab({ ...made, log: made.base, check: () => {} })).rejects.toMatchObject({ code: 'EINVAL' });
    for (const wrong of [{ atomic: 700 }, { atomic: 256 }, { states: 0 }, { jobs: 1.5 }]) {
      await expect(crashLab({ ...made, check: () => {}, ...wrong })).rejects.toThrow(RangeError);
    }
  });

  test('progress goes up to the number of states', async () => {
    const seen: number[] = [];
    const steps: Step[] = [{ write: 0, count: 3, value: 3 }];
    await crashLab({ ...(await subject(steps)), check: () => {}, progress: (done, total) => seen.push(done, total) });
    expect(seen.slice(-2)).toEqual([8, 8]);
  });
});
