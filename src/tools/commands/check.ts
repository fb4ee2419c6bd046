/** `check`: looks for damage in an image, and repairs it if asked. */
import type { CheckReport, RepairMode } from '../../core/driver.ts';
import { BlockError, withErrno } from '../../core/errors.ts';
import { type CheckResult, checkDisk } from '../../jobs/check.ts';
import { type Command, readCommandLine } from '../command.ts';
import { cacheMode, type OutputForm, outputForm } from '../command-line/arguments.ts';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  OUTPUT,
  QUIET,
  SOURCE_CACHE,
} from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure, misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { repairedText, reportJson, reportText } from '../output/check-result.ts';
import { jsonText } from '../output/json.ts';

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
    'Exit status: 0 no damage (or all repaired), 1 the check could not be done, 2 damage, 3 only space that nothing\nuses, 63 the format has no check.',
  options: [
    FORMAT,
    {
      short: 'r',
      long: 'repair',
      argument: 'WHAT',
      help: 'leaks: give back space that nothing uses, correct counts; all: also drop what cannot be right',
    },
    OUTPUT,
    QUIET,
    SOURCE_CACHE,
    OBJECT,
    IMAGE_OPTS,
    FORCE_SHARE,
  ],
  examples: ['check disk.vdi', 'check -r all disk.vdi', 'check --output=json disk.vdi'],
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
  const disk = await openImage(newGraph(context), {
    ...request,
    cache,
    writable: repair !== 'none',
    checkOnly: true,
  });
  return withDisks([disk], async () => {
    let result: CheckResult;
    try {
      const finding = (line: string) => context.messages.raw(`${line}\n`);
      const detail = context.dialect.qemu ? {} : { detail: finding };
      result = await checkDisk(disk, { repair, finding, ...detail, signal: context.signal });
    } catch (error) {
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
  const { repaired, report } = result;
  if (form === 'json') {
    out.line(jsonText(reportJson(filename, format, report)));
  } else {
    if (repaired !== undefined) out.write(repairedText(repaired));
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
