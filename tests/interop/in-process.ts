/** Our image commands run in the test's own process, which is ten times as quick as starting one. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { imageProgram } from '../../src/tools/main.ts';
import { HeldOutput, Messages } from '../../src/tools/output/stream.ts';
import { runProgram } from '../../src/tools/program.ts';
import type { Outcome } from './cli-programs.ts';

/** What diskwright-img, called `qemu-img`, does in a folder, with its streams in files. */
export async function runImageCommand(words: readonly string[], cwd: string): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), 'diskwright-streams-'));
  const [stdout, stderr] = [join(folder, 'stdout'), join(folder, 'stderr')];
  const [out, err] = [openSync(stdout, 'w'), openSync(stderr, 'w')];
  const home = process.cwd();
  process.chdir(cwd);
  try {
    const name = 'qemu-img';
    const end = await runProgram(
      { dialect: { name, qemu: true }, out: new HeldOutput(out), messages: new Messages(name, err) },
      imageProgram(words),
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
