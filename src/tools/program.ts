/** What every program of ours does around its work: output, messages, signals, and what becomes of the outcome. */
import { asBlockError, type BlockError } from '../core/errors.ts';
import { endProcess } from '../node/exit.ts';
import type { Command } from './command.ts';
import { refuseChangedWords } from './command-line/words.ts';
import type { Dialect } from './dialect.ts';
import { Failure, HelpRequest, isInterruption } from './failure.ts';
import { HeldOutput, Messages } from './output/stream.ts';
import { endBySignal, interruptedBy } from './signals.ts';

export interface Program {
  readonly dialect: Dialect;
  readonly out: HeldOutput;
  readonly messages: Messages;
}

export interface ProgramParts {
  /** Resolves with the exit status. */
  run(program: Program): Promise<number>;
  /** Help on a command, or on the program. */
  help(dialect: Dialect, about: Command | undefined): Promise<string>;
}

/** Runs a program on the process's own streams, and ends the process. */
export async function endWithProgram(dialect: Dialect, parts: ProgramParts): Promise<void> {
  const program: Program = { dialect, out: new HeldOutput(1), messages: new Messages(dialect.name, 2) };
  // Without a listener Node starts its inspector (T-GEN-16: the signal is ignored).
  process.on('SIGUSR1', () => {});
  process.on('uncaughtException', (error) => process.exit(complain(program, error)));
  const end = await runProgram(program, {
    ...parts,
    async run(started) {
      refuseChangedWords(process.argv.slice(2));
      return await parts.run(started);
    },
  });
  if (typeof end === 'string') await endBySignal(end);
  else endProcess(end);
}

/** Resolves with the exit status, or with the signal that aborted its work. */
export async function runProgram(program: Program, { run, help }: ProgramParts): Promise<number | NodeJS.Signals> {
  let status: number;
  try {
    status = await run(program);
  } catch (error) {
    const signal = interruptedBy();
    if (signal !== undefined && isInterruption(error)) return signal;
    status = error instanceof HelpRequest ? await showHelp(program, error, help) : complain(program, error);
  }
  try {
    program.out.flush();
  } catch (error) {
    status = complain(program, error);
  }
  return status;
}

async function showHelp(
  { dialect, out, messages }: Program,
  request: HelpRequest,
  help: ProgramParts['help'],
): Promise<number> {
  const { about, complaint } = request;
  if (complaint !== undefined) messages.raw(`${complaint}\n`);
  out.write(typeof about === 'string' ? about : await help(dialect, about));
  return 0;
}

/** Prints what went wrong, in one line and its hints, and returns the exit status. */
function complain({ dialect, messages }: Program, error: unknown): number {
  let status = 1;
  if (error instanceof Failure) {
    const { continuation, place, hint, holder } = error.details;
    if (place !== undefined) messages.errorAt(place, error.message);
    else messages.error(error.message, withHolder(dialect, hint, holder));
    if (continuation !== undefined) messages.error(continuation);
    const { misuse, about } = error.details;
    const program = dialect.qemu ? 'qemu-img' : [dialect.name, about ?? []].flat().join(' ');
    if (misuse) messages.raw(`Try '${program} --help' for more information\n`);
    status = error.details.status ?? 1;
  } else {
    const known = asKnown(error);
    if (known === undefined) internalError(messages, error);
    else messages.error(known.message, withHolder(dialect, known.hint, known.holder));
  }
  if (process.env.DISKWRIGHT_DEBUG === '1') {
    for (let each = error; each instanceof Error; each = each.cause) messages.raw(`${each.stack}\n`);
  }
  return status;
}

function withHolder({ qemu }: Dialect, hint: string | undefined, holder: string | undefined): string | undefined {
  if (qemu || holder === undefined) return hint;
  return hint === undefined ? holder : `${hint}\n${holder}`;
}

/** Errors of the engine, and of the system when standard output cannot be written. */
function asKnown(error: unknown): BlockError | undefined {
  try {
    return asBlockError(error);
  } catch {
    return undefined;
  }
}

function internalError(messages: Messages, error: unknown): void {
  const text = error instanceof Error ? error.message : String(error);
  messages.error(
    `internal error: ${text}`,
    'This is a mistake in diskwright, not yours. Please report it, with what DISKWRIGHT_DEBUG=1 prints.',
  );
}
