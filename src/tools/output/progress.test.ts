import { afterEach, describe, expect, test } from 'vitest';
import type { Context } from '../context.ts';
import { barLine, type ProgressRequest, progressDisplay, progressMode } from './progress.ts';

/** A context that records what is written. */
function recorder(qemu: boolean, terminal = false) {
  const written = { out: '', messages: '' };
  const context = {
    dialect: { name: 'qemu-img', qemu },
    out: {
      write(text: string) {
        written.out += text;
      },
      flush() {},
    },
    messages: {
      isTerminal: terminal,
      raw(text: string) {
        written.messages += text;
      },
    },
  } as unknown as Context;
  return { context, written };
}

function started(context: Context, request: ProgressRequest) {
  const display = progressDisplay(context, request);
  display.begin();
  return display;
}

const NOTHING = { percentages: false, quiet: false, mode: undefined, step: 1 } as const;

afterEach(() => {
  process.removeAllListeners('SIGUSR1');
});

describe('progress (T-GEN-16)', () => {
  test('-p: 0, then each time it moved by the step, 100 again at completion, a newline at the end', () => {
    const { context, written } = recorder(true);
    const display = started(context, { ...NOTHING, percentages: true });
    for (const done of [0, 1, 9, 10, 11, 25, 1000]) display.update(done, 1000);
    display.complete();
    display.end();
    expect(written.out).toBe(
      '    (0.00/100%)\r    (1.00/100%)\r    (2.50/100%)\r    (100.00/100%)\r    (100.00/100%)\r\n',
    );
  });

  test('-p: a failure still ends the line', () => {
    const { context, written } = recorder(true);
    started(context, { ...NOTHING, percentages: true }).end();
    expect(written.out).toBe('    (0.00/100%)\r\n');
  });

  test('-p -q: nothing', () => {
    const { context, written } = recorder(true);
    const display = started(context, { ...NOTHING, percentages: true, quiet: true });
    display.update(1, 2);
    display.complete();
    display.end();
    expect(written).toEqual({ out: '', messages: '' });
  });

  test('SIGUSR1 prints the percentage on standard error while the work lasts', () => {
    const { context, written } = recorder(true);
    const display = started(context, NOTHING);
    display.update(82, 1000);
    process.emit('SIGUSR1');
    display.end();
    process.emit('SIGUSR1');
    expect(written.messages).toBe('    (8.20/100%)\n');
  });

  test('--progress=json: one object a line, at most one a percent', () => {
    const { context, written } = recorder(false);
    const display = started(context, { ...NOTHING, mode: 'json' });
    for (const done of [0, 1, 5, 15, 1000]) display.update(done, 1000);
    display.complete();
    display.end();
    expect(written.messages.split('\n')).toEqual([
      '{"done":0,"total":1000,"percent":0}',
      '{"done":15,"total":1000,"percent":1.5}',
      '{"done":1000,"total":1000,"percent":100}',
      '',
    ]);
  });

  test('a bar appears by itself on a terminal, in our dialect only', () => {
    const ours = recorder(false, true);
    const display = started(ours.context, NOTHING);
    display.update(512, 1024);
    display.end();
    expect(ours.written.messages).toContain('50%  512 B of 1 KiB');
    expect(ours.written.messages).toMatch(/\n$/);
    const theirs = recorder(true, true);
    const silent = started(theirs.context, NOTHING);
    silent.update(1, 2);
    silent.end();
    expect(theirs.written).toEqual({ out: '', messages: '' });
  });

  test('the bar tells rate and time left', () => {
    expect(barLine(300 << 20, 1200 << 20, 2)).toBe(
      '########----------------------   25%  300 MiB of 1.17 GiB  150 MiB/s  0:06 left',
    );
    expect(barLine(0, 0, 0)).toBe('##############################  100%  0 B of 0 B');
  });

  test('modes', () => {
    expect(progressMode('auto')).toBeUndefined();
    expect(() => progressMode('loud')).toThrow('Invalid progress mode: loud');
  });
});
