/** The shell: opens what the command line names, runs commands, closes (T-IO-2, T-IO-3, T-IO-5). */
import { leaveEndToNode } from '../../node/exit.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { type ImageOptions, optionString } from './image-options.ts';
import { type LineSource, pipedLines } from './lines.ts';
import { runLine } from './run-line.ts';
import { Session } from './session.ts';
import { commandsOf } from './table.ts';

export interface IoRequest {
  readonly image: ImageOptions;
  readonly imageOpts: boolean;
  /** A file name, or with `imageOpts` an option string. */
  readonly filename: string | undefined;
  /** Run instead of lines of standard input, if there are any. */
  readonly commands: readonly string[];
}

/** Longer than any run: a timer keeps the process waiting for what never comes. */
const FOREVER_MS = 2 ** 30;

/** Resolves with the exit status. Throws Failure where the image cannot be opened. */
export async function runIo(context: Context, { image, imageOpts, filename, commands }: IoRequest): Promise<number> {
  if (imageOpts && image.format !== undefined) throw new Failure('--image-opts and -f are mutually exclusive');
  const { dialect } = context;
  const session = new Session(context, { imageOpts, commands: commandsOf(dialect) });
  const alive = setInterval(() => {}, FOREVER_MS);
  try {
    if (filename !== undefined) {
      const named = imageOpts ? undefined : filename;
      await session.open(image.source(named, imageOpts ? optionString(context, filename) : {}, named));
    }
    const worked = commands.length > 0 ? await runCommands(session, commands) : await runLines(session);
    await session.close();
    return worked ? 0 : 1;
  } finally {
    clearInterval(alive);
  }
}

async function runCommands(session: Session, commands: readonly string[]): Promise<boolean> {
  let worked = true;
  for (const command of commands) {
    const result = runLine(session, command);
    // Waiting for what is there already would let other things run.
    worked = (typeof result === 'boolean' ? result : await result) && worked;
    if (session.quitting) break;
  }
  return worked;
}

async function runLines(session: Session): Promise<boolean> {
  const source = await lineSource(session);
  session.onInterruption = () => source.interrupted();
  let worked = true;
  try {
    while (!session.quitting && !session.context.out.broken) {
      const next = source.next();
      const line = next instanceof Promise ? await next : next;
      if (line === undefined) break;
      const result = runLine(session, line);
      worked = (typeof result === 'boolean' ? result : await result) && worked;
    }
  } finally {
    session.onInterruption = () => {};
    source.close();
  }
  return worked;
}

async function lineSource({ context, commands }: Session): Promise<LineSource> {
  const { dialect, out } = context;
  const prompt = dialect.qemu ? `${dialect.name}> ` : `${dialect.name} io> `;
  leaveEndToNode();
  if (process.stdin.isTTY && out.isTerminal) {
    const { terminalLines } = await import('./terminal.ts');
    return terminalLines(prompt, commands);
  }
  return pipedLines(process.stdin, out, prompt);
}
