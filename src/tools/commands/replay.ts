/** `replay`: does to an image what a log of writes says was done, or lists the log. */
import type { LogEntry } from '../../filters/log/format.ts';
import { logEntries, type ReplayResult, replay } from '../../jobs/replay.ts';
import { type Command, type GivenOptions, readCommandLine } from '../command.ts';
import { type OutputForm, outputForm } from '../command-line/arguments.ts';
import { plainNumber } from '../command-line/numbers.ts';
import {
  FORMAT,
  JSON_OUTPUT,
  OBJECT,
  OUTPUT,
  PROGRESS,
  PROGRESS_MODE,
  QUIET,
} from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure, misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { type JsonObject, jsonText } from '../output/json.ts';
import { askedDisplay } from '../output/progress.ts';

export const replayCommand: Command = {
  name: 'replay',
  summary: 'Replay a log of writes (dm-log-writes, blklogwrites) onto an image, or list it',
  usage:
    '[--object objectdef] [-f fmt] [--from n] [--until n | --mark name] [--skip-discards] [--list] [--output=ofmt] [-p] [-q] log [filename]',
  operands: 'LOG [FILENAME]',
  description:
    'The log is what the filter log (or blklogwrites) and the device-mapper target log-writes record. FILENAME is an image\nas it was before the first entry that is replayed. Entries count from 0.',
  options: [
    { ...FORMAT, help: "the image's format; default: probed; raw if the log was recorded below a format" },
    { long: 'from', argument: 'N', help: 'begin with this entry' },
    { long: 'until', argument: 'N', help: 'stop before this entry' },
    { long: 'mark', argument: 'NAME', help: 'stop before the mark of this name' },
    { long: 'skip-discards', help: 'leave discards out, to see what was there' },
    { long: 'list', help: 'print the entries, and replay nothing' },
    OUTPUT,
    JSON_OUTPUT,
    PROGRESS,
    PROGRESS_MODE,
    QUIET,
    OBJECT,
  ],
  examples: [
    'replay --list disk.log',
    'replay --mark mounted disk.log disk.raw',
    'replay --until 100 disk.log disk.raw',
  ],
  run,
};

async function run(context: Context): Promise<number> {
  const given = readCommandLine(context, replayCommand);
  const form = given.has('json') ? 'json' : outputForm(given.text('output'));
  const [logName, filename] = given.operands;
  if (given.has('until') && given.has('mark')) throw misuse('--until and --mark are mutually exclusive');
  const range = {
    from: entryNumber('from', given.text('from')) ?? 0,
    until: entryNumber('until', given.text('until')) ?? Number.MAX_SAFE_INTEGER,
  };
  if (given.has('list')) {
    if (logName === undefined || given.operands.length > 1) throw misuse('Expecting one log file name');
    return list(context, given, { ...range, logName, untilMark: given.text('mark') }, form);
  }
  if (logName === undefined || filename === undefined || given.operands.length > 2) {
    throw misuse('Expecting a log and an image file name');
  }
  const result = await replayOnto(context, given, { logName, filename, range });
  if (form === 'json') context.out.line(jsonText({ ...result }));
  else if (!given.has('q'))
    context.out.line(
      `${result.entries} ${result.entries === 1 ? 'entry' : 'entries'} replayed; the next one is ${result.next}.`,
    );
  return 0;
}

interface Names {
  readonly logName: string;
  readonly filename: string;
  readonly range: { readonly from: number; readonly until: number };
}

async function replayOnto(
  context: Context,
  given: GivenOptions,
  { logName, filename, range }: Names,
): Promise<ReplayResult> {
  const graph = newGraph(context);
  const untilMark = given.text('mark');
  const log = await openImage(graph, { ...imageRequest(context, given, logName), format: 'raw' });
  return withDisks([log], async () => {
    const target = await openImage(graph, { ...imageRequest(context, given, filename, 'format'), writable: true });
    const display = askedDisplay(context, given, { step: 1 });
    try {
      const result = await withDisks([target], () => {
        display.begin();
        return replay(log, target, {
          ...range,
          ...(untilMark === undefined ? {} : { untilMark }),
          skipDiscards: given.has('skip-discards'),
          signal: context.signal,
          progress: display.update,
        });
      });
      display.complete();
      return result;
    } finally {
      display.end();
    }
  });
}

function entryNumber(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const number = plainNumber(text);
  if (number === undefined) throw new Failure(`Invalid entry number for --${option}: ${text}`);
  return number;
}

interface ListRange {
  readonly logName: string;
  readonly from: number;
  readonly until: number;
  readonly untilMark: string | undefined;
}

async function list(
  context: Context,
  given: GivenOptions,
  { logName, from, until, untilMark }: ListRange,
  form: OutputForm,
): Promise<number> {
  const { out } = context;
  const log = await openImage(newGraph(context), { ...imageRequest(context, given, logName), format: 'raw' });
  await withDisks([log], async () => {
    let first = true;
    if (form === 'json') out.write('[');
    for await (const { index, entry } of logEntries(log)) {
      if (out.broken || index >= until) break;
      if (index < from) continue;
      if (entry.kind === 'mark' && entry.name === untilMark) break;
      if (form === 'human') out.line(entryLine(index, entry));
      else out.write(`${first ? '' : ','}\n    ${jsonText(entryObject(index, entry), 1)}`);
      first = false;
    }
    if (form === 'json') out.line(first ? ']' : '\n]');
  });
  return 0;
}

function entryLine(index: number, entry: LogEntry): string {
  const head = `${String(index).padEnd(7)} ${entry.kind.padEnd(7)}`;
  if (entry.kind === 'flush') return head.trimEnd();
  if (entry.kind === 'mark') return `${head} ${entry.name}`;
  const flags = entry.kind === 'write' ? `${entry.flush ? ' flush' : ''}${entry.fua ? ' fua' : ''}` : '';
  return `${head} ${entry.offset}+${entry.length}${flags}`;
}

function entryObject(index: number, entry: LogEntry): JsonObject {
  const { kind } = entry;
  if (kind === 'flush') return { entry: index, kind };
  if (kind === 'mark') return { entry: index, kind, name: entry.name };
  const range = { entry: index, kind, offset: entry.offset, length: entry.length };
  return kind === 'discard' ? range : { ...range, fua: entry.fua, flush: entry.flush };
}
