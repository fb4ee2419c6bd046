/** `crashlab`: has a program check every state that a power cut could have left of a recorded disk. */
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Disk } from '../../core/disk.ts';
import { type CrashReport, type CrashState, crashLab } from '../../jobs/crash-lab/crash-lab.ts';
import { describeFinding, describeReport } from '../../jobs/crash-lab/report.ts';
import { serve } from '../../node/nbd/serve.ts';
import { type Command, type GivenOptions, readCommandLine } from '../command.ts';
import { outputForm } from '../command-line/arguments.ts';
import { plainNumber, sizeArgument } from '../command-line/numbers.ts';
import { FORMAT, JSON_OUTPUT, OBJECT, OUTPUT, PROGRESS_MODE, QUIET } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { CommandFailed, runCommand } from '../crashlab/check-command.ts';
import { StateFiles } from '../crashlab/state-file.ts';
import { Failure, misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { type JsonObject, jsonText } from '../output/json.ts';
import { askedDisplay } from '../output/progress.ts';

export const crashlabCommand: Command = {
  name: 'crashlab',
  summary: 'Check every state that a power cut could have left of a recorded disk',
  usage:
    '[--object objectdef] --base filename [-f fmt] [--atomic size] [--states n] [--seed n] [--jobs n] [--timeout seconds] [--accept statuses] [--keep-going] [--save file] [--output=ofmt] [-q] log -- command {} ...',
  operands: 'LOG -- COMMAND {} ...',
  description:
    "LOG is a log of writes, --base the disk as it was before. Each state is a raw file, whose name COMMAND gets for {},\nor an NBD server, whose URI it gets for {nbd}; it may write there. A state fails when COMMAND does not end with\nstatus 0, or one that --accept names. What was flushed is there in all states; of what came since, each write\nmay be there, lost, or torn. DISKWRIGHT_MARKS has the log's marks so far, one a line.\nExit status: 0 all states survive, 1 one fails, 2 the lab could not be run.",
  options: [
    { long: 'base', argument: 'FILENAME', help: 'the disk as it was when the log began' },
    { ...FORMAT, help: "the base's format; default: probed; raw if the log was recorded below a format" },
    { long: 'atomic', argument: 'SIZE', help: 'what the disk writes whole or not at all; default 512' },
    { long: 'states', argument: 'N', help: 'states to try at most, default 1000; where there are more, chance picks' },
    { long: 'seed', argument: 'N', help: 'for what chance picks; default 1' },
    { long: 'jobs', argument: 'N', help: 'commands to run side by side; default: one for each processor' },
    { long: 'timeout', argument: 'SECONDS', help: 'a command that takes longer has failed' },
    {
      long: 'accept',
      argument: 'STATUSES',
      help: 'exit statuses of the command with which a state survives, like 0,1; default 0',
    },
    { long: 'keep-going', help: 'try all states, also after one failed' },
    { long: 'save', argument: 'FILE', help: 'where to put the failing state, cut down, for a closer look' },
    OUTPUT,
    JSON_OUTPUT,
    PROGRESS_MODE,
    { ...QUIET, help: 'print nothing if all states survive' },
    OBJECT,
  ],
  examples: [
    'crashlab fs.log --base fs.raw --accept 0,1 -- fsck.ext4 -fy {}',
    'crashlab vdi.log --base disk.vdi -f raw --accept 0,3 -- diskwright check -f vdi {}',
    'crashlab db.log --base db.raw --atomic 4k --states 5000 -- ./check-database {}',
    'crashlab disk.log --base disk.raw -f raw -- nbdinfo --map {nbd}',
  ],
  failureStatus: 2,
  run,
};

interface Settings {
  readonly base: string;
  readonly log: string;
  readonly words: readonly string[];
  readonly accepted: ReadonlySet<number>;
  readonly lab: {
    readonly atomic: number;
    readonly states: number;
    readonly seed: number;
    readonly jobs: number;
    readonly timeoutMs?: number;
    readonly keepGoing: boolean;
  };
}

async function run(context: Context): Promise<number> {
  try {
    return await runLab(context);
  } catch (error) {
    // Status 1 means that a state failed.
    if (error instanceof Failure) throw new Failure(error.message, { ...error.details, status: 2 });
    throw error;
  }
}

async function runLab(context: Context): Promise<number> {
  const given = readCommandLine(context, crashlabCommand);
  const form = given.has('json') ? 'json' : outputForm(given.text('output'));
  const settings = readSettings(given);
  const graph = newGraph(context);
  const base = await openImage(graph, imageRequest(context, given, settings.base, 'format'));
  return withDisks([base], async () => {
    const log = await openImage(graph, { ...imageRequest(context, given, settings.log), format: 'raw' });
    return withDisks([log], async () => {
      const display = askedDisplay(context, given, { step: 1 });
      const files = new StateFiles(base);
      const folder = mkdtempSync(join(tmpdir(), 'diskwright-crashlab-'));
      try {
        display.begin();
        const check = (disk: Disk, state: CrashState) => checkState({ files, folder, ...settings }, disk, state);
        const { signal } = context;
        const report = await crashLab({ graph, log, base, check, ...settings.lab, signal, progress: display.update });
        display.release();
        await save(files, report, given.text('save'));
        print(context, report, form, given.has('q'));
        return report.failed === 0 ? 0 : 1;
      } finally {
        display.end();
        rmSync(folder, { recursive: true, force: true });
      }
    });
  });
}

/** What stands for a state in the command's words: the name of a file, the URI of an NBD server. */
const FILE = '{}';
const URI = '{nbd}';

let nextFile = 0;

const MARKS_MAX = 1000;
const MARKS_BYTES = 60_000;

interface CheckPlan extends Pick<Settings, 'words' | 'accepted'> {
  readonly files: StateFiles;
  readonly folder: string;
}

async function checkState(
  { files, folder, words, accepted }: CheckPlan,
  disk: Disk,
  { changes, marks, cut, signal }: CrashState,
): Promise<void> {
  const name = join(folder, `state-${nextFile++}`);
  const file = `${name}.raw`;
  const wants = (what: string) => words.some((word) => word.includes(what));
  const served = wants(URI) ? await serve(disk, { socket: `${name}.sock` }) : undefined;
  try {
    if (wants(FILE)) await files.write(disk, changes(), file);
    // The system limits how long a variable may be; the last marks are those that matter.
    const environment = {
      DISKWRIGHT_MARKS: marks.slice(-MARKS_MAX).join('\n').slice(-MARKS_BYTES),
      DISKWRIGHT_CUT: String(cut),
    };
    const filled = words.map((word) => word.replaceAll(URI, served?.uri ?? '').replaceAll(FILE, file));
    await runCommand({ words: filled, environment, accepted, signal });
  } finally {
    // What the command left running may still be connected.
    await served?.close({ hard: true });
    rmSync(file, { force: true });
  }
}

function readSettings(given: GivenOptions): Settings {
  const [log, ...words] = given.operands;
  const base = given.text('base');
  if (log === undefined) throw misuse('Expecting a log file name');
  if (base === undefined) throw misuse('Expecting --base with the disk as it was before');
  if (words.length === 0) throw misuse('Expecting -- and a command');
  if (!words.some((word) => word.includes(FILE) || word.includes(URI))) {
    throw misuse('The command has neither {} for the name of the state nor {nbd} for its NBD URI');
  }
  const timeout = given.text('timeout');
  return {
    base,
    log,
    words,
    accepted: statusesOf(given.text('accept')),
    lab: {
      atomic: atomicOf(given.text('atomic')),
      states: countOf('states', given.text('states'), 1000),
      seed: countOf('seed', given.text('seed'), 1, 0),
      jobs: countOf('jobs', given.text('jobs'), availableParallelism()),
      keepGoing: given.has('keep-going'),
      ...(timeout === undefined ? {} : { timeoutMs: countOf('timeout', timeout, 0) * 1000 }),
    },
  };
}

function atomicOf(text: string | undefined): number {
  if (text === undefined) return 512;
  const size = sizeArgument('atomic size', text, { min: 512n });
  if (!Number.isInteger(Math.log2(size))) throw new Failure(`The atomic size must be a power of two, not ${text}`);
  return size;
}

/** `0,1,4`. */
function statusesOf(text = '0'): ReadonlySet<number> {
  return new Set(
    text.split(',').map((each) => {
      const status = plainNumber(each);
      if (status === undefined || status > 255) throw new Failure(`Invalid exit status for --accept: ${each}`);
      return status;
    }),
  );
}

function countOf(option: string, text: string | undefined, fallback: number, least = 1): number {
  if (text === undefined) return fallback;
  const number = plainNumber(text);
  if (number === undefined || number < least || !Number.isSafeInteger(number)) {
    throw new Failure(`Invalid number for --${option}: ${text}`);
  }
  return number;
}

async function save(files: StateFiles, { failure }: CrashReport, path: string | undefined): Promise<void> {
  if (failure === undefined || path === undefined) return;
  const disk = await failure.open();
  await withDisks([disk], () => files.write(disk, failure.changes(), path));
}

function print({ out }: Context, report: CrashReport, form: 'human' | 'json', quiet: boolean): void {
  const { failure } = report;
  if (form === 'json') {
    out.line(jsonText(reportObject(report)));
    return;
  }
  if (quiet && failure === undefined) return;
  out.line(describeReport(report));
  if (failure === undefined) return;
  out.line(describeFinding(failure));
  const output = failure.cause instanceof CommandFailed ? failure.cause.output.trimEnd() : '';
  if (output !== '') out.line(output.replace(/^/gm, '  | '));
}

function reportObject({ failure, ...counts }: CrashReport): JsonObject {
  if (failure === undefined) return { ...counts };
  const { state, cut, marks, unflushed, minimal, cause } = failure;
  const lost = failure.lost.map(({ parts, ...change }) => ({ ...change, parts: parts.map((part) => ({ ...part })) }));
  const message = cause instanceof Error ? cause.message : String(cause);
  const output = cause instanceof CommandFailed ? cause.output : undefined;
  return { ...counts, failure: { state, cut, marks, unflushed, minimal, lost, message, output } };
}
