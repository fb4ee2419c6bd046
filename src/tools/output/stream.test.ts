import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { HeldOutput, Messages } from './stream.ts';

let folder: string;
let path: string;
let descriptor: number;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-stream-'));
  path = join(folder, 'out');
  descriptor = openSync(path, 'w');
});

afterEach(() => {
  closeSync(descriptor);
  rmSync(folder, { recursive: true });
});

const written = () => readFileSync(path, 'utf8');

describe('standard output (T-GEN-3)', () => {
  test('is held back until flushed, messages are not', () => {
    const out = new HeldOutput(descriptor);
    const messages = new Messages('qemu-img', descriptor);
    out.line('result');
    messages.error('trouble');
    expect(written()).toBe('qemu-img: trouble\n');
    out.flush();
    out.flush();
    expect(written()).toBe('qemu-img: trouble\nresult\n');
  });

  test('more than a MiB is not held', () => {
    const out = new HeldOutput(descriptor);
    out.write('x'.repeat(1 << 20));
    expect(written()).toBe('');
    out.write('y');
    expect(written().length).toBe((1 << 20) + 1);
  });

  test.skipIf(!existsSync('/dev/full'))('a full disk is an error', () => {
    const full = openSync('/dev/full', 'w');
    const out = new HeldOutput(full);
    out.write('x');
    expect(() => out.flush()).toThrow('ENOSPC');
    closeSync(full);
  });
});

describe('messages (T-GEN-1, T-GEN-2)', () => {
  test('begin with the program, hints do not', () => {
    const messages = new Messages('myimg', descriptor);
    messages.error('bad size', 'Use k, M or G.');
    messages.warning('slow');
    messages.errorAt('events:3', 'no such event');
    messages.raw('ERROR: block 1\n');
    expect(written()).toBe(
      'myimg: bad size\nUse k, M or G.\nmyimg: warning: slow\nmyimg:events:3: no such event\nERROR: block 1\n',
    );
  });
});
