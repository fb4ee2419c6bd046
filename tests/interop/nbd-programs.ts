/** Our NBD server as a program, and the programs that it is tried with. */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function installed(program: string): boolean {
  return spawnSync(program, ['--version']).error === undefined;
}

/** For the name of a test: why it is skipped; empty where all are installed. */
export function missing(...programs: readonly string[]): string {
  const absent = programs.filter((program) => !installed(program));
  return absent.length === 0 ? '' : ` (skipped: ${absent.join(', ')} not installed)`;
}

export function run(command: string, args: readonly string[], cwd: string): Outcome {
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: 60_000,
  });
  return { status, stdout, stderr };
}

/** The same without holding up this process, which may be the server. */
export async function runBeside(command: string, args: readonly string[], cwd: string): Promise<Outcome> {
  const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000 });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, stdout, stderr };
}

/** A command left running, and what it says on stderr. */
export function start(command: string, args: readonly string[], cwd: string): ChildProcess {
  return spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
}

export async function stop(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  const closed = once(child, 'exit');
  child.kill(signal);
  const [status] = (await closed) as [number | null];
  return status;
}
