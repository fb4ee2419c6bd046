/** Runs our command line beside the program it stands for, on equal files, for tests that compare what both print. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from '../../scripts/build.mjs';
import { longMode } from '../set-up/seed.ts';
import { root } from '../tidy/source-files.ts';
import { runHere } from './in-process.ts';

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The first line of `program --version`, or undefined where it is not installed. */
export function installedVersion(program: string): string | undefined {
  const run = spawnSync(program, ['--version'], { encoding: 'utf8' });
  return run.status === 0 ? run.stdout.split('\n', 1)[0] : undefined;
}

const peer = installedVersion('qemu-img');

/** Why tests against qemu-img are skipped; undefined where it is there. */
export const peerMissing: string | undefined =
  peer === undefined ? 'qemu-img is not installed (Debian: qemu-utils)' : undefined;

/** Two equal folders, one for each program. */
export class SideBySide {
  readonly #folder = mkdtempSync(join(tmpdir(), 'diskwright-cli-'));
  readonly ours = join(this.#folder, 'ours');
  readonly theirs = join(this.#folder, 'theirs');

  private constructor() {
    for (const folder of [this.ours, this.theirs, join(this.#folder, 'bin')]) mkdirSync(folder);
  }

  static async make(): Promise<SideBySide> {
    const pair = new SideBySide();
    // Called by this name, our messages begin like theirs.
    await linkProgram('diskwright-img', join(pair.#folder, 'bin/qemu-img'));
    await linkProgram('diskwright-io', join(pair.#folder, 'bin/qemu-io'));
    await linkProgram('diskwright', join(pair.#folder, 'bin/diskwright'));
    return pair;
  }

  /** Empties both folders. */
  clear(): void {
    for (const folder of [this.ours, this.theirs]) {
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder);
    }
  }

  /** Keeps what both folders hold, holes and times included, for {@link restore}. */
  keep(): void {
    this.#copy([this.ours, this.theirs], this.#kept());
  }

  /** Both folders as they were when they were kept. */
  restore(): void {
    for (const folder of [this.ours, this.theirs]) rmSync(folder, { recursive: true });
    this.#copy([join(this.#kept(), 'ours'), join(this.#kept(), 'theirs')], this.#folder);
  }

  #kept(): string {
    const folder = join(this.#folder, 'kept');
    mkdirSync(folder, { recursive: true });
    return folder;
  }

  #copy(from: readonly string[], to: string): void {
    const { status, stderr } = spawnSync('cp', ['-a', ...from, to], { encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Runs a program of the system in both folders. */
  prepare(program: string, ...args: string[]): void {
    for (const cwd of [this.ours, this.theirs]) {
      const run = spawnSync(program, args, { cwd, encoding: 'utf8' });
      if (run.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${run.stderr}`);
    }
  }

  /** Runs a program of the system in their folder only. */
  prepareTheirs(program: string, ...args: string[]): void {
    const run = spawnSync(program, args, { cwd: this.theirs, encoding: 'utf8' });
    if (run.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${run.stderr}`);
  }

  /** The path of our program of that name. */
  program(name: 'qemu-img' | 'qemu-io' | 'diskwright'): string {
    return join(this.#folder, 'bin', name);
  }

  /** diskwright-img under the name qemu-img. */
  runOurs(args: readonly string[], input?: Uint8Array): Outcome {
    return run(this.program('qemu-img'), args, this.ours, input);
  }

  /** The same, without a process of its own but in the long mode. */
  async runOursHere(args: readonly string[]): Promise<Outcome> {
    return longMode ? this.runOurs(args) : runHere('qemu-img', args, this.ours);
  }

  /** Once more where it failed to measure a processor that others use too, as it does for LUKS. */
  runTheirs(args: readonly string[]): Outcome {
    for (let tries = 1; ; tries++) {
      const outcome = run('qemu-img', args, this.theirs);
      if (tries === 20 || !outcome.stderr.includes('Unable to get accurate CPU usage')) return outcome;
    }
  }

  /** diskwright-io under the name qemu-io, or under that of a link beside it. */
  runOurIo(args: readonly string[], input?: Uint8Array, link = 'qemu-io'): Outcome {
    return run(join(this.#folder, 'bin', link), args, this.ours, input);
  }

  /** The same, without a process of its own but in the long mode. */
  async runOurIoHere(args: readonly string[]): Promise<Outcome> {
    return longMode ? this.runOurIo(args) : runHere('qemu-io', args, this.ours);
  }

  runTheirIo(args: readonly string[], input?: Uint8Array): Outcome {
    return run('qemu-io', args, this.theirs, input);
  }

  /** The program `diskwright`. */
  runDiskwright(args: readonly string[], input?: Uint8Array): Outcome {
    return run(this.program('diskwright'), args, this.ours, input);
  }

  /** The same, without a process of its own but in the long mode. */
  async runDiskwrightHere(args: readonly string[]): Promise<Outcome> {
    return longMode ? this.runDiskwright(args) : runHere('diskwright', args, this.ours);
  }
}

let built: Promise<boolean> | undefined;

/** A link to one of our programs, built from the present sources. */
export async function linkProgram(
  name: 'diskwright' | 'diskwright-img' | 'diskwright-io' | 'diskwright-nbd',
  path: string,
): Promise<void> {
  built ??= build();
  await built;
  symlinkSync(join(root, 'bin', name), path);
}

function run(program: string, args: readonly string[], cwd: string, input?: Uint8Array): Outcome {
  const { status, stdout, stderr } = spawnSync(program, args, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 1 << 30,
    // One that hangs is a failure, not a wait.
    timeout: 60_000,
    ...(input === undefined ? { stdio: ['ignore', 'pipe', 'pipe'] } : { input }),
  });
  return { status, stdout, stderr };
}

/**
 * What the release installed here does not print yet: children in `info` (T-INFO-3, T-INFO-4). Takes them out of ours.
 */
export function withoutChildren(outcome: Outcome): Outcome {
  const human = outcome.stdout.replace(/^Child node '.*':\n( {4}.*\n)*/gm, '');
  return { ...outcome, stdout: withoutJsonChildren(human) };
}

function withoutJsonChildren(text: string): string {
  const kept: string[] = [];
  let closing: string | undefined;
  for (const line of text.split('\n')) {
    if (closing !== undefined) {
      if (line.startsWith(closing)) closing = undefined;
    } else if (line.endsWith('"children": [')) closing = `${line.slice(0, line.indexOf('"'))}]`;
    else kept.push(line);
  }
  return kept.join('\n');
}

/** Without what depends on how an image is stored: the host's storage in use, places in the file. */
export function withoutStorage(outcome: Outcome): Outcome {
  return { ...outcome, stdout: outcome.stdout.replace(/^disk size: .*\n/gm, '').replace(/, "offset": \d+/g, '') };
}
