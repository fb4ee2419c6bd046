/** `check`: looks for damage in an image, and repairs it if asked. */
import type { CheckReport, RepairMode } from '../../core/driver.ts';
import { BlockError, withErrno } from '../../core/errors.ts';
import { type CheckResult, checkDisk } from '../../jobs/check.ts';
import { type Command, type GivenOptions, readCommandLine } from '../command.ts';
import { cacheMode, type OutputForm, outputForm } from '../command-line/arguments.ts';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  OUTPUT,
  PROGRESS,
  PROGRESS_MODE,
  QUIET,
  SOURCE_CACHE,
} from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure, misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { plannedJson, plannedText, repairedText, reportJson, reportText } from '../output/check-result.ts';
import { jsonText } from '../output/json.ts';
import { askedDisplay } from '../output/progress.ts';

/** Exit statuses (T-GEN-7, T-CHECK-5). */
const NOT_CHECKED = 1;
const CORRUPT = 2;
const LEAKS = 3;
const UNSUPPORTED = 63;

export const checkCommand: Command = {
  name: 'check',
  summary: 'Look for damage in an image, and repair it if asked',
  usage:
    '[--object objectdef] [--image-opts] [-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [-T src_cache] [-U] filename',
  operands: 'FILENAME',
  description:
    'Exit status: 0 no damage (or all repaired), 1 the check could not be done, 2 damage, 3 only space that nothing\nuses, 63 the format has no check. --plan ends as a check without -r does.',
  options: [
    FORMAT,
    {
      short: 'r',
      long: 'repair',
      argument: 'WHAT',
      help: 'leaks: give back space that nothing uses, correct counts; all: also drop what cannot be right',
    },
    { long: 'plan', help: 'with -r: say what the repair would do, line by line, and write nothing', beyond: true },
    {
      long: 'decompress',
      help: 'also decompress all that is stored compressed, and tell what cannot be',
      beyond: true,
    },
    {
      long: 'zero-beyond-end',
      help: 'with -r all: what lies past the end of a file cut short reads as zeroes from then on',
      beyond: true,
    },
    OUTPUT,
    { ...PROGRESS, beyond: true },
    PROGRESS_MODE,
    QUIET,
    SOURCE_CACHE,
    OBJECT,
    IMAGE_OPTS,
    FORCE_SHARE,
  ],
  examples: [
    'check disk.vdi',
    'check -r all disk.vdi',
    'check -r all --plan disk.qcow2',
    'check --decompress disk.qcow2',
    'check --output=json disk.vdi',
  ],
  run,
};

async function run(context: Context): Promise<number> {
  let repair: RepairMode = 'none';
  const given = readCommandLine(context, checkCommand, {
    repair: (value) => {
      repair = repairMode(value);
    },
  });
  const { filename } = given;
  const form = outputForm(given.text('output'));
  const cache = cacheMode('source cache', given.text('T'));
  const request = imageRequest(context, given, filename, 'format');
  const plan = given.has('plan');
  requireRepair(given, repair);
  const disk = await openImage(newGraph(context), {
    ...request,
    cache,
    writable: repair !== 'none' && !plan,
    checkOnly: true,
  });
  // qemu-img's check has none, and takes no notice of SIGUSR1 (T-GEN-16).
  const quiet = context.dialect.qemu || given.has('q');
  const display = askedDisplay(context, given, { step: 1, quiet });
  return withDisks([disk], async () => {
    let result: CheckResult;
    try {
      display.begin();
      const finding = (line: string) => {
        display.release();
        context.messages.raw(`${line}\n`);
      };
      result = await checkDisk(disk, {
        repair,
        plan,
        decompress: given.has('decompress'),
        // To the letter, but where a repair would leave it.
        countsOnly: context.dialect.qemu && repair !== 'all',
        zeroBeyondEnd: given.has('zero-beyond-end'),
        finding,
        ...(context.dialect.qemu ? {} : { detail: finding }),
        progress: display.update,
        signal: context.signal,
      });
      display.complete();
      display.end();
    } catch (error) {
      display.end();
      if (!(error instanceof BlockError)) throw error;
      if (error.code === 'ENOTSUP') {
        throw new Failure('This image format does not support checks', { status: UNSUPPORTED, cause: error });
      }
      // What it could not get past is told of by itself.
      if (error.message.startsWith('ERROR ')) context.messages.error(error.message, error.hint);
      throw withErrno(error.code, 'Check failed', { cause: error });
    }
    if (!given.has('q')) print(context, form, { filename, format: disk.format, result });
    return exitStatus(context, result.report);
  });
}

/** Options that say more about a repair. Throws Failure where there is to be none. */
function requireRepair(given: GivenOptions, repair: RepairMode): void {
  if (given.has('plan') && repair === 'none') throw misuse('--plan needs a repair to plan: -r leaks or -r all');
  if (given.has('zero-beyond-end') && repair !== 'all') throw misuse('--zero-beyond-end is a part of -r all');
}

/** `-r`. */
function repairMode(text: string): RepairMode {
  if (text === 'leaks' || text === 'all') return text;
  throw misuse(`Unknown option value for -r (expecting 'leaks' or 'all'): ${text}`);
}

interface Checked {
  readonly filename: string;
  readonly format: string;
  readonly result: CheckResult;
}

function print({ out }: Context, form: OutputForm, { filename, format, result }: Checked): void {
  const { repaired, planned, report } = result;
  if (form === 'json') {
    const plan = planned === undefined ? {} : { planned: plannedJson(planned) };
    out.line(jsonText({ ...reportJson(filename, format, report), ...plan }));
  } else {
    if (repaired !== undefined) out.write(repairedText(repaired));
    if (planned !== undefined) out.write(plannedText(planned));
    out.write(reportText(report));
  }
}

function exitStatus({ messages }: Context, report: CheckReport): number {
  if (report.checkErrors > 0) {
    messages.error('Check failed');
    return NOT_CHECKED;
  }
  if (report.corruptions > 0) return CORRUPT;
  return report.leaks > 0 ? LEAKS : 0;
}
