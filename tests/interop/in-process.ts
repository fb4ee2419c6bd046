/** Our programs run in the test's own process, which is ten times as quick as starting one. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ioProgram } from '../../src/tools/io/program.ts';
import { imageProgram } from '../../src/tools/main.ts';
import { HeldOutput, Messages } from '../../src/tools/output/stream.ts';
import { runProgram } from '../../src/tools/program.ts';
import type { Outcome } from './cli-programs.ts';

const PROGRAMS = {
  'qemu-img': { parts: imageProgram, qemu: true },
  'qemu-io': { parts: ioProgram, qemu: true },
  diskwright: { parts: imageProgram, qemu: false },
};

/**
 * What diskwright, or diskwright-img or diskwright-io called by the name of its peer, does in a folder, with its streams in
 * files.
 */
export async function runHere(name: keyof typeof PROGRAMS, words: readonly string[], cwd: string): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), 'diskwright-streams-'));
  const [stdout, stderr] = [join(folder, 'stdout'), join(folder, 'stderr')];
  const [out, err] = [openSync(stdout, 'w'), openSync(stderr, 'w')];
  const { parts, qemu } = PROGRAMS[name];
  const home = process.cwd();
  process.chdir(cwd);
  try {
    const end = await runProgram(
      { dialect: { name, qemu }, out: new HeldOutput(out), messages: new Messages(name, err) },
      parts(words),
    );
    return {
      status: typeof end === 'number' ? end : null,
      stdout: readFileSync(stdout, 'utf8'),
      stderr: readFileSync(stderr, 'utf8'),
    };
  } finally {
    process.chdir(home);
    closeSync(out);
    closeSync(err);
    rmSync(folder, { recursive: true });
  }
}
