/** Chains of qcow2 images: diskwright-img prints what qemu-img prints, and exits as it exits. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { nodeHost } from '../../src/node/host.ts';
import { CHAIN_CASES } from './chain-cases.ts';
import { wordsOf } from './cli-cases.ts';
import { type Outcome, peerMissing, SideBySide, withoutChildren, withoutStorage } from './cli-programs.ts';

/** A write of `length` bytes; absent `byte`: as zeroes. */
interface Write {
  readonly offset: number;
  readonly length: number;
  readonly byte?: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;

/** A base, an image over it, one over that which is longer, and some that are out of order. */
async function prepare(pair: SideBySide): Promise<void> {
  for (const folder of [pair.ours, pair.theirs]) mkdirSync(join(folder, 'sub'));
  pair.prepare('qemu-img', 'create', '-q', '-f', 'raw', 'base.raw', '4M');
  pair.prepare('qemu-io', '-f', 'raw', '-c', 'write -P 1 0 1M', 'base.raw');
  pair.prepare('cp', 'base.raw', 'same.raw');
  pair.prepare('qemu-img', 'create', '-q', '-f', 'raw', 'empty.raw', '4M');
  pair.prepare('qemu-img', 'create', '-q', '-f', 'raw', 'short.raw', '512k');
  pair.prepare('qemu-img', 'create', '-q', '-f', 'vdi', 'v.vdi', '4M');
  const both = (...args: string[]) => {
    for (const run of [pair.runTheirs(args), pair.runOurs(args)]) if (run.status !== 0) throw new Error(run.stderr);
  };
  both('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'mid.qcow2');
  both('create', '-q', '-f', 'qcow2', '-b', 'mid.qcow2', '-F', 'qcow2', 'top.qcow2', '8M');
  both('create', '-q', '-f', 'qcow2', '-b', '../base.raw', '-F', 'raw', 'sub/rel.qcow2');
  both('create', '-q', '-f', 'qcow2', '-u', '-b', 'nope.raw', '-F', 'raw', 'lost.qcow2', '4M');
  both('create', '-q', '-f', 'qcow2', '-u', '-b', 'loop2.qcow2', '-F', 'qcow2', 'loop1.qcow2', '4M');
  both('create', '-q', '-f', 'qcow2', '-u', '-b', 'loop1.qcow2', '-F', 'qcow2', 'loop2.qcow2', '4M');
  both('create', '-q', '-f', 'qcow2', 'alone.qcow2', '4M');
  await fill(pair, 'mid.qcow2', [
    { offset: 64 * KIB, length: 64 * KIB, byte: 2 },
    { offset: 128 * KIB, length: 64 * KIB },
  ]);
  await fill(pair, 'top.qcow2', [
    { offset: MIB, length: 64 * KIB, byte: 3 },
    { offset: 6 * MIB, length: 64 * KIB, byte: 4 },
  ]);
  await fill(pair, 'alone.qcow2', [{ offset: 512 * KIB, length: 64 * KIB, byte: 5 }]);
}

/** The same writes into theirs by qemu-io, and into ours. */
async function fill(pair: SideBySide, name: string, writes: readonly Write[]): Promise<void> {
  const commands = writes.flatMap(({ offset, length, byte }) => [
    '-c',
    `write ${byte === undefined ? '-z' : `-P ${byte}`} ${offset} ${length}`,
  ]);
  pair.prepareTheirs('qemu-io', '-f', 'qcow2', ...commands, name);
  const graph = new Graph({ host: nodeHost(), drivers: DRIVERS });
  const disk = await graph.open(join(pair.ours, name), { format: 'qcow2', writable: true });
  for (const { offset, length, byte } of writes) {
    if (byte === undefined) await disk.writeZeroes(offset, length);
    else await disk.write(offset, new Uint8Array(length).fill(byte));
  }
  await disk.close();
}

/** Sizes and places in files differ; progress is told in other steps. */
function comparable(line: string, outcome: Outcome): Outcome {
  const { status, stdout, stderr } = withoutStorage(outcome);
  const text = stdout.replace(/^ *"actual-size": \d+,\n/gm, '').replace(/( {4}\(\d+\.\d\d\/100%\)\r)+/g, 'PROGRESS\r');
  // qemu-img leaves the line of this hint open.
  const hints = stderr.replace(/(Detected format of \w+\.)$/, '$1\n');
  return { status, stdout: line.includes('--help') ? '' : text, stderr: hints };
}

describe.skipIf(peerMissing !== undefined)(`chains${peerMissing ? ` (${peerMissing})` : ''}`, () => {
  let pair: SideBySide;
  beforeAll(async () => {
    pair = await SideBySide.make();
    await prepare(pair);
    pair.keep();
  });
  afterAll(() => pair?.remove());

  describe.each(CHAIN_CASES)('$name', ({ lines }) => {
    beforeAll(() => pair.restore());

    for (const line of lines) {
      test(`qemu-img ${line}`, async () => {
        const theirs = pair.runTheirs(wordsOf(line));
        const ours = await pair.runOursHere(wordsOf(line));
        const shown = /^info/.test(line) ? withoutChildren(ours) : ours;
        expect(comparable(line, shown)).toEqual(comparable(line, theirs));
      });
    }
  });
});
