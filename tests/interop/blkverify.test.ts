/** blkverify beside QEMU's: the same results and messages, and the same end of the program (BV rules). */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Outcome, peerMissing, SideBySide } from './cli-programs.ts';

const SIZE = 1 << 20;

let pair: SideBySide;
beforeAll(async () => {
  if (peerMissing !== undefined) return;
  pair = await SideBySide.make();
  const other = Buffer.alloc(SIZE);
  other[5000] = 1;
  for (const folder of [pair.ours, pair.theirs]) {
    for (const name of ['raw', 'test', 'long']) {
      writeFileSync(join(folder, name), Buffer.alloc(name === 'long' ? 2 * SIZE : SIZE));
    }
    writeFileSync(join(folder, 'other'), other);
  }
  pair.prepare('qemu-img', 'create', '-q', '-f', 'vdi', 't.vdi', '1M');
});
afterAll(() => pair?.remove());

const faulty = (side: 'test' | 'raw', file: string, rule: string) =>
  `${side}.driver=blkdebug,${side}.image.driver=file,${side}.image.filename=${file},${rule
    .split(',')
    .map((part) => `${side}.inject-error.${part}`)
    .join()}`;
const plain = (side: 'test' | 'raw', file: string) => `${side}.driver=raw,${side}.file.filename=${file}`;
const both = (test: string, raw: string) => ['--image-opts', `driver=blkverify,${test},${raw}`];

/** Words before the commands, and the commands. */
const CASES: readonly (readonly [rules: string, words: readonly string[], ...commands: string[]])[] = [
  ['BV-1', ['-f', 'blkverify', 'blkverify:raw'], 'length'],
  ['BV-1', ['-f', 'blkverify', 'blkverify:'], 'length'],
  ['BV-1', ['-f', 'blkverify', 'blkverify::test'], 'length'],
  ['BV-1', ['-f', 'blkverify', 'blkverify:raw:'], 'length'],
  ['BV-1', ['-f', 'blkverify', 'raw'], 'length'],
  ['BV-2, BV-3', ['-f', 'blkverify', 'blkverify:nope:test'], 'length'],
  ['BV-2, BV-3', ['-f', 'blkverify', 'blkverify:raw:nope'], 'length'],
  ['BV-2', ['-f', 'blkverify', 'blkverify:raw:t.vdi'], 'length', 'write -P 5 0 4k', 'read -P 5 0 4k'],
  ['BV-2', ['-r', '-f', 'blkverify', 'blkverify:raw:t.vdi'], 'length', 'read -P 5 0 4k', 'write 0 1'],
  ['BV-2', ['--image-opts', `driver=blkverify,${plain('test', 'test')}`], 'length'],
  ['BV-2', ['--image-opts', `driver=blkverify,${plain('raw', 'raw')}`], 'length'],
  ['BV-2', both(plain('test', 'test'), `${plain('raw', 'raw')},foo=1`), 'length'],
  ['BV-4', both(plain('test', 'test'), plain('raw', 'long')), 'length', 'read 0 1M', 'write 1M 512'],
  ['BV-5', both(plain('test', 'test'), plain('raw', 'long')), 'write -P 3 4k 4k', 'read -P 3 4k 4k', 'aio_read 0 8k'],
  ['BV-6', both(faulty('test', 'test', 'event=none'), plain('raw', 'long')), 'read 0 512', 'length'],
  ['BV-6', both(plain('test', 'test'), faulty('raw', 'long', 'event=none,errno=28')), 'read 0 512', 'length'],
  ['BV-6', both(plain('test', 'test'), faulty('raw', 'long', 'event=none,iotype=write')), 'write 512 512', 'length'],
  [
    'BV-6',
    both(faulty('test', 'test', 'event=none,errno=13'), faulty('raw', 'long', 'event=none,errno=28')),
    'aio_write 0 512',
    'aio_flush',
    'length',
  ],
  ['BV-7, BV-8', both(plain('test', 'test'), plain('raw', 'other')), 'read 0 4k', 'read 4k 4k', 'length'],
  ['BV-7, BV-8', both(plain('test', 'test'), plain('raw', 'other')), 'aio_read 4999 100', 'aio_flush', 'length'],
  ['BV-7', both(plain('test', 'test'), plain('raw', 'other')), 'read 5001 100', 'read 4999 1', 'read 5000 1'],
  ['BV-9', both(faulty('test', 'test', 'event=none'), faulty('raw', 'long', 'event=none')), 'write 0 512', 'length'],
  ['BV-10', both(plain('test', 'test'), faulty('raw', 'long', 'event=none,iotype=flush')), 'write 0 512', 'flush'],
  ['BV-10', both(faulty('test', 'test', 'event=none,iotype=flush'), plain('raw', 'long')), 'flush', 'length'],
];

/** Without what the clock decides. */
function comparable({ status, stdout, stderr }: Outcome) {
  return { status, stdout: stdout.replace(/; (?:\d+:\d\d:\d\d\.\d\d|\d\d\.\d\d sec) \(.*\)$/gm, '; TIME'), stderr };
}

describe.skipIf(peerMissing !== undefined)(`like qemu-io${peerMissing ? ` (skipped: ${peerMissing})` : ''}`, () => {
  test.each(CASES.map(([rules, words, ...commands], index) => ({ index, rules, words, commands })))(
    '$index: $rules $words $commands',
    ({ words, commands }) => {
      const all = [...commands.flatMap((command) => ['-c', command]), ...words];
      expect(comparable(pair.runOurIo(all))).toEqual(comparable(pair.runTheirIo(all)));
    },
  );

  test('BV-15, BD-52: the names that are shown', () => {
    for (const options of [
      'driver=blkverify,raw.filename=raw,raw.driver=file,test.driver=vdi,test.file.filename=t.vdi',
      'driver=blkverify,raw.driver=raw,raw.file.filename=raw,test.driver=raw,test.file.filename=test,test.size=1048576',
      'driver=blkdebug,image.driver=file,image.filename=raw',
      'driver=blkdebug,image.driver=file,image.filename=raw,align=512',
      'driver=blkdebug,image.driver=raw,image.file.filename=raw',
      'driver=blkdebug,image.driver=file,image.filename=raw,inject-error.event=read_aio,inject-error.sector=4',
      'driver=blkdebug,image.driver=file,image.filename=raw,take-child-perms.0=write',
    ]) {
      const words = ['info', '--image-opts', options];
      const line = ({ stdout, stderr }: Outcome) => stdout.split('\n', 1)[0] + stderr;
      expect(line(pair.runOurs(words))).toBe(line(pair.runTheirs(words)));
    }
  });
});
