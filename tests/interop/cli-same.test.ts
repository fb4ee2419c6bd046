/** diskwright-img prints what qemu-img prints, and exits as it exits, for a table of command lines. */
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CaseGroup, MAKING, MISUSE, OPENING, READING, wordsOf } from './cli-cases.ts';
import { type Outcome, peerMissing, SideBySide, withoutChildren, withoutStorage } from './cli-programs.ts';
import { QCOW2 } from './cli-qcow2-cases.ts';

const MIB = 1 << 20;
/** Where a VDI's header keeps the number of allocated blocks, and where this writer puts the block map (V-1). */
const BLOCKS_ALLOCATED = 0x184;
const MAP = 0x200;

/** Images that the command lines name, equal in both folders. */
function prepareImages(pair: SideBySide): void {
  const image = (...args: string[]) => pair.prepare('qemu-img', ...args);
  image('create', '-q', '-f', 'raw', 'r5.raw', '5M');
  image('create', '-q', '-f', 'raw', 'z10.raw', '10M');
  image('create', '-q', '-f', 'raw', 'd10.raw', '10M');
  pair.prepare('qemu-io', '-f', 'raw', '-c', 'write -P 3 1M 64k', '-c', 'write -P 4 5000000 9000', 'd10.raw');
  image('create', '-q', '-f', 'vdi', 'v10.vdi', '10M');
  image('convert', '-O', 'vdi', 'd10.raw', 'data.vdi');
  image('create', '-q', '-f', 'vdi', '-o', 'static=on', 'static.vdi', '10M');
  for (const name of ['badcount', 'double', 'toolarge']) image('convert', '-O', 'vdi', 'd10.raw', `${name}.vdi`);
  for (const folder of [pair.ours, pair.theirs]) {
    mkdirSync(join(folder, 'folder'));
    writeFileSync(join(folder, 'empty.raw'), '');
    writeFileSync(join(folder, 'odd.raw'), Buffer.alloc(5 * MIB + 100, 7));
    patch(join(folder, 'badcount.vdi'), BLOCKS_ALLOCATED, 9);
    patch(join(folder, 'double.vdi'), MAP + 4 * 4, 0);
    patch(join(folder, 'toolarge.vdi'), MAP + 4 * 4, 77);
  }
}

function patch(path: string, offset: number, value: number): void {
  const descriptor = openSync(path, 'r+');
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  writeSync(descriptor, bytes, 0, 4, offset);
  closeSync(descriptor);
}

function defineGroup(group: CaseGroup): void {
  describe.skipIf(peerMissing !== undefined)(`${group.name}${peerMissing ? ` (${peerMissing})` : ''}`, () => {
    let pair: SideBySide;
    beforeAll(async () => {
      pair = await SideBySide.make();
      prepareImages(pair);
    });
    afterAll(() => pair?.remove());

    for (const line of group.lines) {
      test(`qemu-img ${line}`, async () => {
        const theirs = pair.runTheirs(wordsOf(line));
        const ours = await pair.runOursHere(wordsOf(line));
        const view = line.startsWith('≈') ? withoutStorage : (outcome: Outcome) => outcome;
        expect(view(/^≈?info/.test(line) ? withoutChildren(ours) : ours)).toEqual(view(theirs));
      });
    }
  });
}

for (const group of [...MISUSE, ...OPENING, ...READING, ...MAKING, ...QCOW2]) defineGroup(group);
