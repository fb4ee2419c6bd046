/** blkdebug beside QEMU's: the same rules over the same commands give the same results and messages (BD rules). */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FAULTS, type FaultRun } from './blkdebug-cases.ts';
import { type Outcome, peerMissing, SideBySide } from './cli-programs.ts';

let pair: SideBySide;
beforeAll(async () => {
  if (peerMissing !== undefined) return;
  pair = await SideBySide.make();
  pair.prepare('qemu-img', 'create', '-q', '-f', 'raw', 'a.raw', '1M');
  pair.prepare('qemu-img', 'create', '-q', '-f', 'vdi', 'a.vdi', '4M');
  pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', 'a.qcow2', '4M');
  pair.prepare('qemu-io', '-f', 'vdi', '-c', 'write -q 1M 1M', 'a.vdi');
});
afterAll(() => pair?.remove());

/** One process opens the image of each run in turn. */
function wordsOf(runs: readonly FaultRun[]): string[] {
  const commands = runs.flatMap(({ options, format = 'raw', below, words = '', commands: own, config }, index) => {
    const list = config === undefined ? options : `config=conf${index}`;
    const under = (prefix: string, text: string) => text.replaceAll(/(^|,)(?=.)/g, `$1${prefix}`);
    const child = under('file.image.', below ?? `filename=a.${format}`);
    const image = [`driver=${format},file.driver=blkdebug`, child, under('file.', list ?? '')].filter((part) => part);
    return [`open ${words} -o ${image.join()}`, ...own, 'close'];
  });
  return commands.flatMap((command) => ['-c', command]);
}

/** Without what the clock decides, where the config file is at fault, and the older wording of a number too large. */
function comparable({ status, stdout, stderr }: Outcome) {
  return {
    status,
    stdout: stdout.replace(/; (?:\d+:\d\d:\d\d\.\d\d|\d\d\.\d\d sec) \(.*\)$/gm, '; TIME').split('\n'),
    stderr: stderr
      .replace(/^conf\d+, line \d+\n/gm, '')
      .replace(/Value '(\d+)' is too large for/g, "Value '$1' is out of range for")
      .replace(/'inject-error\n'/, "'inject-error'")
      .split('\n'),
  };
}

describe.skipIf(peerMissing !== undefined)(`like qemu-io${peerMissing ? ` (skipped: ${peerMissing})` : ''}`, () => {
  test.each(FAULTS.map(({ name, runs }) => [name, runs] as const))('%s', async (_name, runs) => {
    for (const [index, { config }] of runs.entries()) {
      if (config === undefined) continue;
      for (const folder of [pair.ours, pair.theirs]) writeFileSync(join(folder, `conf${index}`), config);
    }
    const words = wordsOf(runs);
    const [ours, theirs] = [await pair.runOurIoHere(words), pair.runTheirIo(words)];
    expect(theirs.stdout.length + theirs.stderr.length).toBeGreaterThan(runs.length);
    expect(comparable(ours)).toEqual(comparable(theirs));
  });
});
