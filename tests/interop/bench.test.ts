/** `bench` beside qemu-img's: output, statuses, and what is on the disk afterwards (T-BENCH-1). */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { wordsOf } from './cli-cases.ts';
import { type Outcome, peerMissing, SideBySide } from './cli-programs.ts';

const LINES = [
  'bench',
  'bench a.raw b.raw',
  'bench nope.raw',
  'bench --nope d.raw',
  'bench -c x d.raw',
  'bench -c -1 d.raw',
  'bench -c 2147483648 d.raw',
  'bench -c 0x10 -d 2 -f raw d.raw',
  'bench -c 0 -f raw d.raw',
  'bench -d x d.raw',
  'bench -d -1 d.raw',
  'bench -s x d.raw',
  'bench -s 3G d.raw',
  'bench -S x d.raw',
  'bench -S 3G d.raw',
  'bench -o x d.raw',
  'bench --pattern 256 -w d.raw',
  'bench --pattern x d.raw',
  'bench --flush-interval x d.raw',
  'bench --flush-interval 4 -c 3 d.raw',
  'bench -w --flush-interval 4 -d 8 d.raw',
  'bench -i foo d.raw',
  'bench -i native d.raw',
  'bench -n -f raw d.raw',
  'bench -t foo d.raw',
  'bench -c 100 -d 4 d.raw',
  'bench -q -c 10 -f raw -s 100 -S 50 -o 3 d.raw',
  'bench -c 10 -i threads -t none -n -f raw d.raw',
  'bench -c 10 -S 0 -s 64k -U d.qcow2',
  'bench -c 3 --no-drain --pattern 5 d.qcow2',
  'bench -c 2 --image-opts driver=raw,file.filename=d.raw',
  'bench -c 2 -s 0 -f raw d.raw',
  'bench -c 1 -o 2M -f raw d.raw',
  'bench -c 2 -d 1 -s 8k -o 1020k -f raw d.raw',
  'bench -c 1 -s 2M -f raw d.raw',
  'bench -w -c 5 -d 3 -S 700k --pattern 7 -f raw d.raw',
  'bench -w -c 3 -d 1 -o 1020k --pattern 0x9 -f raw d.raw',
  'bench -w -c 300 -s 100 -S 3001 --pattern 8 d.qcow2',
  'bench -w -c 10 -d 2 --flush-interval 4 --pattern 010 d.qcow2',
  'bench -w -c 10 -d 2 --flush-interval 4 --no-drain -t writethrough --pattern 11 d.qcow2',
  'bench -w -c 1 d.raw',
];

function withoutTime({ stdout, ...rest }: Outcome): Outcome {
  return { ...rest, stdout: stdout.replace(/in \d+\.\d{3} seconds/, 'in TIME seconds') };
}

describe.skipIf(peerMissing !== undefined)(`bench${peerMissing ? ` (${peerMissing})` : ''}`, () => {
  let pair: SideBySide;
  beforeAll(async () => {
    pair = await SideBySide.make();
    pair.prepare('qemu-img', 'create', '-q', '-f', 'raw', 'd.raw', '1M');
    pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', 'd.qcow2', '1M');
  });
  afterAll(() => pair?.remove());

  for (const line of LINES) {
    test(`qemu-img ${line}`, async () => {
      const theirs = pair.runTheirs(wordsOf(line));
      const ours = await pair.runOursHere(wordsOf(line));
      expect(withoutTime(ours)).toEqual(withoutTime(theirs));
    });
  }

  test('the same content afterwards', () => {
    for (const name of ['d.raw', 'd.qcow2']) {
      const compared = pair.runTheirs(['compare', `${pair.ours}/${name}`, `${pair.theirs}/${name}`]);
      expect(compared).toMatchObject({ status: 0, stdout: 'Images are identical.\n' });
    }
  });
});
