/**
 * Tries the crashes of a workload: the power is cut after each thing it did to its files, and of the changes that were not
 * flushed some are lost or torn by sector. Every state that differs is checked once.
 */

import { SeededRandom } from '../bytes/random.ts';
import { imageKey } from './image-hash.ts';
import { SimHost } from './sim-host.ts';
import { CrashFront, type LogEntry, type SimImage, type Survival, type VolatileEntry } from './sim-image.ts';
import { survivalChoices } from './sim-survival.ts';

/** Files, what is done to them, and what must hold whenever it is cut short. */
export interface CrashScenario {
  /** A host with the files that are there before, which records. */
  start(): SimHost | Promise<SimHost>;
  /** What is done to them; `host.note()` tells the check how far it got. */
  workload(host: SimHost): Promise<void>;
  /** Throws when the surviving state is not acceptable. The host is its own to change. */
  check(host: SimHost, point: CrashPoint): Promise<void>;
}

/** The moment of a crash. */
export interface CrashPoint {
  /** Entries of the log that came before the crash. */
  readonly cut: number;
  /** What the workload had noted by then. */
  readonly notes: readonly unknown[];
}

/** How many states are tried, and which. */
export interface ExplorerOptions {
  /** Default 1. */
  readonly seed?: number;
  /** States tried for each cut, at most. Default 12. */
  readonly statesPerCut?: number;
}

/** What was tried. */
export interface CrashExploration {
  readonly cuts: number;
  /** States that were checked, and states left out because an equal one had been. */
  readonly states: number;
  readonly repeated: number;
}

/** A surviving state that its check refused, with as few changes lost as it takes. */
export class CrashFailure extends Error {
  override readonly name = 'CrashFailure';
  readonly point: CrashPoint;
  /** Lost or torn changes, as texts. */
  readonly missing: readonly string[];
  readonly image: SimImage;

  constructor(message: string, details: { point: CrashPoint; missing: string[]; image: SimImage; cause: unknown }) {
    super(message, { cause: details.cause });
    this.point = details.point;
    this.missing = details.missing;
    this.image = details.image;
  }
}

/** Runs the workload once, then checks its crash states. Throws {@link CrashFailure} at the first that fails. */
export async function exploreCrashes(
  scenario: CrashScenario,
  { seed = 1, statesPerCut = 12 }: ExplorerOptions = {},
): Promise<CrashExploration> {
  const host = await scenario.start();
  const first = host.log.length;
  await scenario.workload(host);
  const random = new SeededRandom(seed);
  const front = new CrashFront(host.startImage());
  const notes: unknown[] = [];
  const seen = new Set<string>();
  let states = 0;
  let repeated = 0;
  for (let cut = 0; cut <= host.log.length; cut++) {
    const entry = cut === 0 ? undefined : host.log[cut - 1];
    if (entry !== undefined) front.advance(entry);
    if (entry?.type === 'note') notes.push(entry.note);
    // What `start` did is not what is tested.
    if (cut < first) continue;
    const point: CrashPoint = { cut, notes: [...notes] };
    for (const survivals of survivalChoices(front.volatile, statesPerCut, random)) {
      const image = front.image(survivals);
      const key = `${notes.length} ${imageKey(image)}`;
      if (seen.has(key)) {
        repeated++;
        continue;
      }
      seen.add(key);
      states++;
      const problem = await tryState(scenario, image, point);
      if (problem !== undefined) throw await smallest(scenario, front, survivals, point, host.log, problem.cause);
    }
  }
  return { cuts: host.log.length - first + 1, states, repeated };
}

async function tryState(
  scenario: CrashScenario,
  image: SimImage,
  point: CrashPoint,
): Promise<{ cause: unknown } | undefined> {
  try {
    await scenario.check(new SimHost({ record: false }, image), point);
    return undefined;
  } catch (cause) {
    return { cause };
  }
}

/** Gives lost changes back one by one, as long as the state still fails. */
async function smallest(
  scenario: CrashScenario,
  front: CrashFront,
  failing: readonly Survival[],
  point: CrashPoint,
  log: readonly LogEntry[],
  firstCause: unknown,
): Promise<CrashFailure> {
  let survivals = [...failing];
  let cause = firstCause;
  for (let changed = true; changed; ) {
    changed = false;
    for (let i = 0; i < survivals.length; i++) {
      if (survivals[i] === 'whole') continue;
      const candidate = survivals.with(i, 'whole');
      const problem = await tryState(scenario, front.image(candidate), point);
      if (problem === undefined) continue;
      survivals = candidate;
      cause = problem.cause;
      changed = true;
    }
  }
  const missing = front.volatile.flatMap((entry, i) => describeMissing(entry, survivals[i] ?? 'lost'));
  const last =
    point.cut === 0 ? 'before anything was done' : `after #${point.cut - 1}: ${describe(log[point.cut - 1])}`;
  const message = [
    `A crash ${last}, ${missing.length === 0 ? 'with nothing lost' : 'which'}`,
    ...missing.map((line) => `  ${line}`),
    `leaves a state that fails: ${cause instanceof Error ? cause.message : String(cause)}`,
  ].join('\n');
  return new CrashFailure(message, { point, missing, image: front.image(survivals), cause });
}

function describeMissing({ index, entry }: VolatileEntry, survival: Survival): string[] {
  if (survival === 'whole') return [];
  if (survival === 'lost') return [`loses #${index}: ${describe(entry)}`];
  const lost = survival.kept.flatMap((kept, sector) => (kept ? [] : [sector]));
  const shown = lost.length > 8 ? `${lost.slice(0, 8).join(' ')} … (${lost.length} in all)` : lost.join(' ');
  return [`tears #${index}, losing its sectors ${shown}: ${describe(entry)}`];
}

/** One line on what an entry of the log did. */
export function describe(entry: LogEntry | undefined): string {
  if (entry === undefined) return 'nothing';
  if (entry.type === 'note') return 'a note';
  if (entry.type === 'flush') return `flush of ${entry.path}`;
  const { change } = entry;
  switch (change.kind) {
    case 'make':
    case 'remove':
      return `${change.kind} ${change.path}`;
    case 'rename':
      return `rename ${change.from} to ${change.to}`;
    case 'truncate':
      return `truncate to ${change.length}`;
    case 'write':
      return `write ${change.data.length} at ${change.offset}`;
    default:
      return `${change.kind} ${change.length} at ${change.offset}`;
  }
}
