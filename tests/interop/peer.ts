/** qemu-img and qemu-io as peers: run, or kept running with an image open. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

function installed(program: string): boolean {
  return spawnSync(program, ['--version']).status === 0;
}

/** Why tests with the peers are skipped; undefined where they are installed. */
export const peersMissing: string | undefined =
  installed('qemu-img') && installed('qemu-io')
    ? undefined
    : 'qemu-img or qemu-io is not installed (Debian: qemu-utils)';

/** For the names of tests that may be skipped. */
export const skipNote = peersMissing === undefined ? '' : ` (skipped: ${peersMissing})`;

export interface Run {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function qemuImg(...args: string[]): Run {
  const { status, stdout, stderr } = spawnSync('qemu-img', args, { encoding: 'utf8' });
  return { status, stdout, stderr };
}

/** Runs qemu-img, which must succeed; its standard output. */
export function qemuImgOk(...args: string[]): string {
  const run = qemuImg(...args);
  if (run.status !== 0) throw new Error(`qemu-img ${args.join(' ')}: ${run.status}\n${run.stdout}${run.stderr}`);
  return run.stdout;
}

/** Runs commands in one qemu-io, all of which must succeed. */
export function qemuIo(
  format: string,
  path: string,
  commands: readonly string[],
  flags: readonly string[] = [],
): string {
  const args = [...flags, '-f', format, ...commands.flatMap((command) => ['-c', command]), path];
  const run = spawnSync('qemu-io', args, { encoding: 'utf8', maxBuffer: 1 << 28 });
  if (run.status !== 0 || /failed|error|can't open/i.test(run.stdout + run.stderr)) {
    throw new Error(`qemu-io ${args.join(' ')}: ${run.status}\n${run.stdout}${run.stderr}`);
  }
  return run.stdout;
}

const PROMPT = 'qemu-io> ';

/** A qemu-io that keeps an image open until it is told to end. */
export class RunningQemuIo {
  readonly #child: ChildProcessWithoutNullStreams;
  #output = '';
  #errors = '';

  private constructor(format: string, path: string, flags: readonly string[]) {
    this.#child = spawn('qemu-io', [...flags, '-f', format, path]);
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text;
    });
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text;
    });
  }

  /** Starts it and waits until the image is open. */
  static async open(format: string, path: string, ...flags: string[]): Promise<RunningQemuIo> {
    const running = new RunningQemuIo(format, path, flags);
    await running.#nextPrompt(0);
    return running;
  }

  /** Runs a command; its output. One at a time: it sees a second line only when more comes after. */
  async ask(command: string): Promise<string> {
    const before = this.#output.length;
    this.#child.stdin.write(`${command}\n`);
    await this.#nextPrompt(before);
    return this.#output.slice(before, -PROMPT.length);
  }

  async close(): Promise<void> {
    const closed = once(this.#child, 'close');
    this.#child.stdin.end('quit\n');
    await closed;
  }

  async #nextPrompt(from: number): Promise<void> {
    const closed = once(this.#child, 'close').then(() => 'closed' as const);
    while (!this.#output.slice(from).endsWith(PROMPT)) {
      const event = await Promise.race([once(this.#child.stdout, 'data').then(() => 'data' as const), closed]);
      if (event === 'closed') throw new Error(`qemu-io ended: ${this.#output}${this.#errors}`);
    }
  }
}

/** A temporary folder for the time of `work`. */
export async function inFolder<T>(work: (folder: string) => Promise<T> | T): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'diskwright-interop-'));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
