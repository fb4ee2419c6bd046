/** The programs' common main: standard options, the command's name, and what becomes of its outcome. */
import { basename } from 'node:path';
import { asBlockError, type BlockError } from '../core/errors.ts';
import { wrongOption } from './command.ts';
import { Getopt, type OptionSpec } from './command-line/getopt.ts';
import { ObjectList } from './command-line/objects.ts';
import { commands } from './commands/index.ts';
import type { Dialect } from './dialect.ts';
import { Failure, HelpRequest, misuse, withStatus } from './failure.ts';
import { HeldOutput, Messages } from './output/stream.ts';
import { endBySignal, interruptedBy, interruptSignal } from './signals.ts';

const STANDARD_OPTIONS: readonly OptionSpec[] = [
  { short: 'h', long: 'help', help: 'show this help' },
  { short: 'V', long: 'version', help: 'show the version' },
  { short: 'T', long: 'trace', argument: 'TRACE', help: 'specify tracing options' },
];

interface Program {
  readonly dialect: Dialect;
  readonly out: HeldOutput;
  readonly messages: Messages;
}

/** Runs a program and ends the process. `qemu`: speak qemu-img's command line. */
export async function main(qemu: boolean): Promise<void> {
  const dialect: Dialect = { name: basename(process.argv[1] ?? ''), qemu };
  const program: Program = { dialect, out: new HeldOutput(1), messages: new Messages(dialect.name, 2) };
  // Without a listener Node starts its inspector (T-GEN-16: the signal is ignored).
  process.on('SIGUSR1', () => {});
  process.on('uncaughtException', (error) => process.exit(complain(program, error)));
  let status: number;
  try {
    status = await run(program);
  } catch (error) {
    const signal = interruptedBy();
    if (signal !== undefined) return endBySignal(signal);
    status = error instanceof HelpRequest ? await showHelp(program, error) : complain(program, error);
  }
  try {
    program.out.flush();
  } catch (error) {
    status = complain(program, error);
  }
  process.exit(status);
}

async function run({ dialect, out, messages }: Program): Promise<number> {
  const rest = process.argv.slice(2);
  if (rest.length === 0) throw misuse('Not enough arguments');
  const getopt = new Getopt([dialect.name, ...rest], STANDARD_OPTIONS, { stopAtOperand: true });
  for (let parsed = getopt.next(); parsed !== undefined; parsed = getopt.next()) {
    if (parsed.kind !== 'option') throw wrongOption(parsed);
    if (parsed.key === 'help') throw new HelpRequest();
    if (parsed.key === 'version') {
      out.write((await import('./output/help.ts')).versionText(dialect));
      return 0;
    }
    (await import('./command-line/trace.ts')).traceArgument(parsed.value, messages);
  }
  const [name, ...words] = getopt.operands();
  if (name === undefined) return 0;
  const command = await commands.find((entry) => entry.name === name)?.load();
  if (command === undefined) throw misuse(`Command not found: ${name}`);
  const context = {
    dialect,
    words,
    out,
    messages,
    objects: new ObjectList(),
    get signal() {
      return interruptSignal();
    },
  };
  try {
    return await command.run(context);
  } catch (error) {
    throw withStatus(error, command.failureStatus ?? 1);
  }
}

async function showHelp({ dialect, out, messages }: Program, request: HelpRequest): Promise<number> {
  const { about, complaint } = request;
  if (complaint !== undefined) messages.raw(`${complaint}\n`);
  const { helpText } = await import('./output/help.ts');
  out.write(typeof about === 'string' ? about : await helpText(dialect, about));
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
    const program = dialect.qemu ? 'qemu-img' : dialect.name;
    if (error.details.misuse) messages.raw(`Try '${program} --help' for more information\n`);
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
