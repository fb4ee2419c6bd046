/** diskwright-io prints what qemu-io prints, and ends as it ends, for a table of runs. Times and rates aside. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Outcome, peerMissing, SideBySide } from './cli-programs.ts';
import { FILTERS, IMAGES, type IoGroup, type IoRun, PROGRAM, REQUESTS } from './io-cases.ts';

const MIB = 1 << 20;

const CONFIGS: Readonly<Record<string, string>> = {
  'status.conf': rules(
    { event: 'none', iotype: 'block-status', errno: '5' },
    { event: 'none', iotype: 'flush', errno: '28' },
  ),
  'write.conf': rules({ event: 'pwritev', errno: '28', once: 'on' }, { event: 'read_aio', errno: '5' }),
  'sector.conf': rules({ event: 'none', errno: '5', sector: '1' }),
  'sector9.conf': rules({ event: 'none', errno: '28', sector: '2060', iotype: 'read' }),
};

function rules(...entries: Record<string, string>[]): string {
  return entries
    .map((entry) => {
      const lines = Object.entries(entry).map(([key, value]) => `${key} = "${value}"`);
      return `[inject-error]\n${lines.join('\n')}\n`;
    })
    .join('\n');
}

function prepareImages(pair: SideBySide): void {
  for (const name of ['a', 'grow']) pair.prepare('qemu-img', 'create', '-q', '-f', 'raw', `${name}.raw`, '1M');
  pair.prepare('qemu-img', 'create', '-q', '-f', 'raw', 'holes.raw', '64M');
  pair.prepare('qemu-io', '-f', 'raw', '-c', 'write -q 1M 64k', '-c', 'write -q 5000000 9000', 'holes.raw');
  pair.prepare('qemu-img', 'create', '-q', '-f', 'vdi', 'a.vdi', '8M');
  pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', 'packed.qcow2', '700000');
  pair.prepare('qemu-img', 'convert', '-O', 'vdi', 'holes.raw', 'data.vdi');
  const other = Buffer.alloc(MIB);
  other[4096] = 1;
  for (const folder of [pair.ours, pair.theirs]) {
    mkdirSync(join(folder, 'folder'));
    writeFileSync(join(folder, 'empty'), '');
    writeFileSync(join(folder, 'src'), 'hello');
    writeFileSync(join(folder, 'odd.raw'), Buffer.alloc(1000, 'x'));
    writeFileSync(join(folder, 'same.raw'), Buffer.alloc(MIB));
    writeFileSync(join(folder, 'other.raw'), other);
    for (const [name, text] of Object.entries(CONFIGS)) writeFileSync(join(folder, name), text);
  }
}

function wordsOf({ words, commands = [] }: IoRun): string[] {
  const first = words === '' ? [] : words.split(' ').map((word) => (word === "''" ? '' : word));
  return [...commands.flatMap((command) => ['-c', command]), ...first];
}

/** Without what the clock decides, and the digits in names of nodes. */
function comparable({ status, stdout, stderr }: Outcome) {
  const text = stdout
    .replace(/; (?:\d+:\d\d:\d\d\.\d\d|\d\d\.\d\d sec) \([\d.inf]+ \w+\/sec and [\d.inf]+ ops\/sec\)$/gm, '; TIME')
    .replace(/^(\d+),1,\d+:\d\d:\d\d\.\d\d,[\d.inf]+,[\d.inf]+$/gm, '$1,1,TIME');
  return { status, stdout: text, stderr: stderr.replace(/#block\d+/g, '#block') };
}

/** Usage texts that the release followed has other letters in than the one installed here (T-IO-7). */
const LETTERS: readonly (readonly [string, string])[] = [
  ['aio_read [-Ciqv]', 'aio_read [-Ciqrv]'],
  ['aio_write [-Cfiquz]', 'aio_write [-Cfiqruz]'],
  ['read [-abCqv]', 'read [-abCqrv]'],
  ['readv [-Cqv]', 'readv [-Cqrv]'],
  ['write [-bcCfnquz]', 'write [-bcCfnqruz]'],
  ['writev [-Cfq]', 'writev [-Cfqr]'],
];

/** What they print, as the release that we follow prints it; where to report bugs is another place for ours. */
function theirs(outcome: Outcome): Outcome {
  let { stdout } = outcome;
  for (const [before, after] of LETTERS) stdout = stdout.replaceAll(before, after);
  return {
    ...outcome,
    stdout: stdout.replace(/\nSee <https:.*\nMore information .*\n/, ''),
    stderr: outcome.stderr.replace(
      /^blkverify: (.*) contents mismatch at offset (\d+)\n/m,
      'blkverify: $1 contents mismatch at offset $2\n',
    ),
  };
}

/** What may end more than the run: these are given a process of their own. */
const ENDING = /sigraise|abort|blkverify:/;

let pair: SideBySide;
beforeAll(async () => {
  if (peerMissing === undefined) pair = await SideBySide.make();
});
afterAll(() => pair?.remove());

function defineGroup(group: IoGroup): void {
  describe.skipIf(peerMissing !== undefined)(`${group.name}${peerMissing ? ` (${peerMissing})` : ''}`, () => {
    beforeAll(() => {
      pair.clear();
      prepareImages(pair);
    });

    for (const [index, run] of group.runs.entries()) {
      const shown = run.input === undefined ? (run.commands ?? []).join('; ') : JSON.stringify(run.input);
      test(`${index}: qemu-io ${run.words} ${shown}`, async () => {
        const input = run.input === undefined ? undefined : Buffer.from(run.input);
        const expected = pair.runTheirIo(wordsOf(run), input);
        const apart = input !== undefined || ENDING.test(shown) || ENDING.test(run.words);
        const ours = apart ? pair.runOurIo(wordsOf(run), input) : await pair.runOurIoHere(wordsOf(run));
        expect(comparable(ours)).toEqual(comparable(theirs(expected)));
      });
    }
  });
}

for (const group of [...PROGRAM, ...REQUESTS, ...IMAGES, ...FILTERS]) defineGroup(group);
