/** Images that another process holds: both programs refuse alike, and say alike why (T-GEN-10). */
import { type ChildProcess, spawn } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { wordsOf } from './cli-cases.ts';
import { peerMissing, SideBySide, withoutChildren } from './cli-programs.ts';

const LINES = [
  'info held.vdi',
  'info -f vdi held.vdi',
  'info -U held.vdi',
  'check held.vdi',
  'check -U held.vdi',
  'check -r all held.vdi',
  'map held.vdi',
  'map -U held.vdi',
  'compare held.vdi other.vdi',
  'compare other.vdi held.vdi',
  'compare -U other.vdi held.vdi',
  'convert held.vdi x.raw',
  'convert -U held.vdi x.raw',
  'convert -O vdi other.vdi held.vdi',
  'convert -n -O vdi other.vdi held.vdi',
  'measure held.vdi',
  'measure -U held.vdi',
  'dd if=held.vdi of=x.raw',
  'dd -U if=held.vdi of=x.raw',
  'dd if=other.vdi of=held.vdi',
  'resize held.vdi 20M',
  'create -f vdi held.vdi 5M',
  'info held.raw',
  'info -f raw held.raw',
  'map -f raw held.raw',
  'compare -f raw -F raw held.raw held.raw',
  'convert -f raw held.raw x.raw',
  'convert -U -f raw held.raw x.raw',
  'measure -f raw held.raw',
];

describe.skipIf(peerMissing !== undefined)(`images in use${peerMissing ? ` (${peerMissing})` : ''}`, () => {
  let pair: SideBySide;
  const holders: ChildProcess[] = [];

  beforeAll(async () => {
    pair = await SideBySide.make();
    pair.prepare('qemu-img', 'create', '-q', '-f', 'vdi', 'held.vdi', '10M');
    pair.prepare('qemu-img', 'create', '-q', '-f', 'vdi', 'other.vdi', '10M');
    pair.prepare('qemu-img', 'create', '-q', '-f', 'raw', 'held.raw', '5M');
    for (const cwd of [pair.ours, pair.theirs]) {
      for (const format of ['vdi', 'raw']) holders.push(await hold(cwd, format));
    }
  });
  afterAll(() => {
    for (const holder of holders) holder.kill();
    pair?.remove();
  });

  /** A writer that has the image open, and lets nobody else write. */
  function hold(cwd: string, format: string): Promise<ChildProcess> {
    const holder = spawn('qemu-io', ['-f', format, `held.${format}`], { cwd, stdio: ['pipe', 'pipe', 'ignore'] });
    return new Promise((resolve, reject) => {
      // It prompts when the image is open.
      holder.stdout?.once('data', () => resolve(holder));
      holder.once('exit', () => reject(new Error('qemu-io could not open the image')));
    });
  }

  for (const line of LINES) {
    test(`qemu-img ${line}`, () => {
      const theirs = pair.runTheirs(wordsOf(line));
      const ours = pair.runOurs(wordsOf(line));
      expect(line.startsWith('info') ? withoutChildren(ours) : ours).toEqual(theirs);
    });
  }

  test('a second writer of a raw image is refused, which qemu-img lets write', () => {
    for (const line of ['resize -f raw held.raw 6M', 'create held.raw 5M', 'convert other.vdi held.raw']) {
      const { status, stderr } = pair.runOurs(wordsOf(line));
      expect([line, status, stderr]).toEqual([line, 1, expect.stringContaining('Failed to get shared "write" lock')]);
    }
  });

  test('diskwright names the process that is in the way', () => {
    const { stderr } = pair.runDiskwright(['info', 'held.vdi']);
    expect(stderr.split('\n')).toEqual([
      `diskwright: Could not open 'held.vdi': Failed to get shared "write" lock`,
      'Is another process using the image [held.vdi]?',
      expect.stringMatching(/^It is used by qemu-io \(process \d+\)\.$/),
      '',
    ]);
  });
});
