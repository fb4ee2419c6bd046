/** The main of diskwright-nbd. */
import { basename } from 'node:path';
import { asBlockError } from '../../core/errors.ts';
import { ObjectList } from '../command-line/objects.ts';
import { refuseChangedWords } from '../command-line/words.ts';
import type { Context } from '../context.ts';
import { Failure, HelpRequest, isInterruption } from '../failure.ts';
import { HeldOutput, Messages } from '../output/stream.ts';
import { endBySignal, interruptedBy, interruptSignal } from '../signals.ts';
import { readArguments, TextRequest } from './arguments.ts';
import { forkServer, isForked, reportReady } from './fork.ts';

/** Runs the program and ends the process. */
export async function nbdMain(): Promise<void> {
  const program = basename(process.argv[1] ?? '');
  const out = new HeldOutput(1);
  const messages = new Messages(program, 2);
  process.on('SIGUSR1', () => {});
  process.on('uncaughtException', (error) => process.exit(complain(messages, error)));
  const context: Context = {
    dialect: { name: program, qemu: true },
    words: process.argv.slice(2),
    out,
    messages,
    objects: new ObjectList(),
    get signal() {
      return interruptSignal();
    },
  };
  let status: number;
  try {
    status = await run(context);
  } catch (error) {
    const signal = interruptedBy();
    if (signal !== undefined && isInterruption(error)) return endBySignal(signal);
    status = await answer(context, error);
  }
  try {
    out.flush();
  } catch (error) {
    status = complain(messages, error);
  }
  process.exit(status);
}

async function run(context: Context): Promise<number> {
  const { words, objects, messages } = context;
  refuseChangedWords(words);
  const args = readArguments(words, objects, messages);
  if (args.list) return (await import('./list.ts')).listExports(context, args);
  const forked = isForked();
  if (args.given.has('fork') && !forked) return forkServer(messages.program, words);
  const { serveArguments } = await import('./serve-arguments.ts');
  await serveArguments(context, args, () => {
    if (forked) reportReady();
  });
  return 0;
}

async function answer({ out, messages }: Context, error: unknown): Promise<number> {
  if (error instanceof TextRequest) {
    const texts = await import('./help.ts');
    out.write(error.kind === 'help' ? texts.helpText(messages.program) : texts.versionText(messages.program));
    return 0;
  }
  if (error instanceof HelpRequest && typeof error.about === 'string') {
    out.write(error.about);
    return 0;
  }
  return complain(messages, error);
}

/** One line and its hints; the exit status. */
function complain(messages: Messages, error: unknown): number {
  if (process.env.DISKWRIGHT_DEBUG === '1' && error instanceof Error) messages.raw(`${error.stack}\n`);
  if (error instanceof Failure) {
    messages.error(error.message, error.details.hint);
    if (error.details.continuation !== undefined) messages.error(error.details.continuation);
    return 1;
  }
  try {
    const { message, hint } = asBlockError(error);
    messages.error(message, hint);
  } catch {
    messages.error(`internal error: ${error instanceof Error ? error.message : String(error)}`);
  }
  return 1;
}
