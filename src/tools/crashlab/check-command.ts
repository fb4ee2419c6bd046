/** Running a user's program on a crash state. */
import { spawn } from 'node:child_process';
import { codeOf, errorText } from '../../core/errors.ts';
import { CannotCheck } from '../../jobs/crash-lab/crash-lab.ts';
import { Failure } from '../failure.ts';

/** What a program says is kept from its end, this many bytes. */
const OUTPUT_MAX = 8192;

/** A program that ended in failure: the state is not acceptable. */
export class CommandFailed extends Error {
  override readonly name = 'CommandFailed';
  /** The end of what it printed on both streams. */
  readonly output: string;

  constructor(how: string, output: string) {
    super(how);
    this.output = output;
  }
}

export interface CommandRun {
  /** Program and arguments. */
  readonly words: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** Exit statuses that say that the state is acceptable. */
  readonly accepted: ReadonlySet<number>;
  /** Ends it, with all that it started. */
  readonly signal: AbortSignal;
}

/** Resolves when the program ends with an accepted status. Throws CommandFailed, or CannotCheck where it cannot be started. */
export function runCommand({ words, environment, accepted, signal }: CommandRun): Promise<void> {
  const [program = '', ...args] = words;
  return new Promise((resolve, reject) => {
    // A process group of its own, so that what it started ends with it.
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      env: { ...process.env, ...environment },
    });
    let output = Buffer.alloc(0);
    const keep = (bytes: Buffer) => {
      output = Buffer.concat([output, bytes]).subarray(-OUTPUT_MAX);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    const end = () => {
      if (child.pid === undefined) return;
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {
        // It is gone.
      }
    };
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    child.on('error', (error) => {
      signal.removeEventListener('abort', end);
      const cause = new Failure(`Cannot run '${program}': ${errorText(codeOf(error))}`, { status: 2, cause: error });
      reject(new CannotCheck(cause.message, { cause }));
    });
    child.on('close', (status, killedBy) => {
      signal.removeEventListener('abort', end);
      if (status !== null && accepted.has(status)) resolve();
      else reject(new CommandFailed(howItEnded(status, killedBy), output.toString()));
    });
  });
}

function howItEnded(status: number | null, signal: NodeJS.Signals | null): string {
  return status === null ? `ended by ${signal}` : `exit status ${status}`;
}
