/** The log filter beside QEMU's blklogwrites: the same commands leave the same log, byte for byte. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { peerMissing, SideBySide } from './cli-programs.ts';

const SIZE = 1 << 20;

let pair: SideBySide;
beforeAll(async () => {
  if (peerMissing === undefined) pair = await SideBySide.make();
});
afterAll(() => pair?.remove());
beforeEach(() => {
  if (peerMissing !== undefined) return;
  for (const folder of [pair.ours, pair.theirs]) {
    writeFileSync(join(folder, 'disk'), Buffer.alloc(SIZE, 7));
    writeFileSync(join(folder, 'log'), '');
  }
});

interface LogCase {
  readonly name: string;
  readonly options?: string;
  /** Words before the commands. */
  readonly words?: readonly string[];
  readonly commands: readonly string[];
}

const WRITEBACK = ['-t', 'writeback'];

const CASES: readonly LogCase[] = [
  {
    name: 'every kind of request',
    words: WRITEBACK,
    commands: ['write -P 1 0 1k', 'flush', 'write -z 4k 4k', 'discard 8k 4k', 'write -f -P 2 16k 512', 'write 100 10'],
  },
  {
    name: 'a cache: flushes only where they are asked for',
    words: WRITEBACK,
    commands: ['write 0 1k', 'write 1k 1k', 'flush', 'flush'],
  },
  {
    name: 'durable writes',
    words: WRITEBACK,
    // The first one of a session leaves no flush in QEMU's log, though it is durable.
    commands: ['write 4k 512', 'write -f 0 1k', 'write 4k 512', 'write -f -z 8k 4k', 'write 12k 512'],
  },
  {
    name: 'another length, which leaves no entry',
    words: WRITEBACK,
    commands: ['write 0 1k', 'truncate 2M', 'truncate 1M', 'write 4k 1k', 'truncate 4k', 'flush'],
  },
  { name: 'a flush of nothing', words: WRITEBACK, commands: ['flush', 'read 0 512', 'flush'] },
  {
    name: 'unaligned writes are widened',
    words: WRITEBACK,
    commands: ['write 10 10', 'write 500 100', 'write 100 5000', 'flush'],
  },
  {
    name: 'unaligned zero writes',
    words: WRITEBACK,
    commands: ['write -z 10 10', 'write -z 100 5000', 'write -z -u 4k 64k', 'flush'],
  },
  {
    name: 'larger sectors',
    options: ',log-sector-size=4096',
    words: WRITEBACK,
    commands: ['write 0 4k', 'write 512 512', 'write 4000 200', 'write -z 100 9000', 'discard 4k 8k', 'flush'],
  },
  {
    name: 'the superblock now and then',
    options: ',log-super-update-interval=2',
    words: WRITEBACK,
    commands: ['write 0 512', 'write 1k 512', 'write 2k 512'],
  },
  {
    name: 'the superblock always',
    options: ',log-super-update-interval=1',
    words: WRITEBACK,
    commands: ['write 0 512', 'write 1k 512', 'flush'],
  },
  { name: 'no such sector', options: ',log-sector-size=1000', commands: ['write 0 512'] },
  { name: 'too large a sector', options: ',log-sector-size=16M', commands: ['write 0 512'] },
  { name: 'no such interval', options: ',log-super-update-interval=0', commands: ['write 0 512'] },
  { name: 'appending to an empty log', options: ',log-append=on', words: WRITEBACK, commands: ['write 0 512'] },
  { name: 'two that exclude each other', options: ',log-append=on,log-sector-size=4096', commands: ['write 0 512'] },
  { name: 'an unknown option', options: ',foo=1', commands: ['write 0 512'] },
];

function wordsOf({ options = '', words = [], commands }: LogCase): string[] {
  const image = `driver=blklogwrites,file.driver=file,file.filename=disk,log.driver=file,log.filename=log${options}`;
  return [...words, ...commands.flatMap((command) => ['-c', command]), '--image-opts', image];
}

function both(run: LogCase): void {
  const words = wordsOf(run);
  const [ours, theirs] = [pair.runOurIo(words), pair.runTheirIo(words)];
  expect([ours.status, ours.stderr]).toEqual([theirs.status, theirs.stderr]);
  for (const file of ['disk', 'log']) {
    const [left, right] = [readFileSync(join(pair.ours, file)), readFileSync(join(pair.theirs, file))];
    expect([file, entriesOf(left)]).toEqual([file, entriesOf(right)]);
    expect([file, left.length, Buffer.compare(left, right)]).toEqual([file, right.length, 0]);
  }
}

/** Heads of a log, for reading where two differ. */
function entriesOf(log: Buffer): string[] {
  if (log.length < 512 || log.readBigUInt64LE(0) !== 0x6a736677736872n) return [];
  const [count, sector] = [Number(log.readBigUInt64LE(16)), log.readUInt32LE(24)];
  const entries = [`${count} of ${sector}`];
  for (let at = sector; at + 32 <= log.length; ) {
    const [start, length, flags] = [0, 8, 16].map((field) => Number(log.readBigUInt64LE(at + field)));
    entries.push(`${start}+${length} ${flags}`);
    at += sector + ((flags ?? 0) & 4 ? 0 : (length ?? 0) * sector);
  }
  return entries;
}

describe.skipIf(peerMissing !== undefined)(`like qemu-io${peerMissing ? ` (skipped: ${peerMissing})` : ''}`, () => {
  test.each(CASES)('$name', (run) => both(run));

  test('what is no log is not gone on with', () => {
    for (const folder of [pair.ours, pair.theirs]) writeFileSync(join(folder, 'log'), Buffer.alloc(4096, 'y'));
    both({ name: '', options: ',log-append=on', commands: ['write 0 512'] });
  });

  test('a log that is gone on with', () => {
    both({ name: '', words: WRITEBACK, commands: ['write -P 1 0 1k', 'discard 4k 4k', 'flush'] });
    both({ name: '', options: ',log-append=on', words: WRITEBACK, commands: ['write -P 2 8k 1k', 'flush'] });
  });
});
