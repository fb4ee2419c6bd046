/** Progress of long work (T-GEN-16): qemu-img's percentage, a bar on a terminal, JSON lines for programs. */
import { formatSize } from '../../bytes/size.ts';
import type { Progress } from '../../core/driver.ts';
import type { GivenOptions } from '../command.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';

export type ProgressMode = 'none' | 'bar' | 'json';

export interface ProgressRequest {
  /** `-p`: percentages on standard output. */
  readonly percentages: boolean;
  readonly quiet: boolean;
  /** `--progress`; undefined: a bar if standard error is a terminal. */
  readonly mode: ProgressMode | undefined;
  /** Percentage points between two lines of `-p`. */
  readonly step: number;
}

export interface ProgressDisplay {
  /** The work begins: shows 0 percent. */
  begin(): void;
  readonly update: Progress;
  /** It is shown only when asked for, if ever, so it need not be even. */
  readonly seldom?: boolean;
  /** Something else is about to be printed: leaves the line that a bar stands on. */
  release(): void;
  /** All is done: shows 100 percent. */
  complete(): void;
  /** The end, in success and failure. */
  end(): void;
}

/** Undefined: as the terminal is. Throws Failure. */
export function progressMode(text: string): ProgressMode | undefined {
  if (text === 'auto') return undefined;
  if (text === 'none' || text === 'bar' || text === 'json') return text;
  throw new Failure(`Invalid progress mode: ${text}. Use bar, json, none or auto.`);
}

/** A display for one piece of work. With `-q` nothing is shown at all. */
export function progressDisplay(context: Context, request: ProgressRequest): ProgressDisplay {
  if (request.quiet) return { begin() {}, update() {}, seldom: true, release() {}, complete() {}, end() {} };
  if (request.percentages) return percentages(context, request.step);
  const mode = request.mode ?? (!context.dialect.qemu && context.messages.isTerminal ? 'bar' : 'none');
  const display = mode === 'bar' ? bar(context) : mode === 'json' ? jsonLines(context) : undefined;
  return display ?? onSignal(context);
}

/** The display that a command's `-p`, `-q` and `--progress` ask for, but for what `request` says. */
export function askedDisplay(
  context: Context,
  given: GivenOptions,
  request: Partial<ProgressRequest> & Pick<ProgressRequest, 'step'>,
): ProgressDisplay {
  const mode = progressMode(given.text('progress') ?? 'auto');
  return progressDisplay(context, { percentages: given.has('p'), quiet: given.has('q'), mode, ...request });
}

function share(done: number, total: number): number {
  return total === 0 ? 100 : (done / total) * 100;
}

function percentages(context: Context, step: number): ProgressDisplay {
  let shown = -1;
  const show = (percent: number) => {
    shown = percent;
    context.out.write(`    (${percent.toFixed(2)}/100%)\r`);
    context.out.flush();
  };
  return {
    begin: () => show(0),
    update(done, total) {
      const percent = share(done, total);
      // Of nothing there is only the beginning and the end.
      if (percent === shown || total === 0) return;
      if (percent >= shown + step || percent === 0 || percent === 100) show(percent);
    },
    release() {},
    complete: () => show(100),
    end() {
      context.out.write('\n');
      // Before a message on standard error.
      context.out.flush();
    },
  };
}

/** Silent, but SIGUSR1 prints where it is on standard error. */
function onSignal(context: Context): ProgressDisplay {
  let percent = 0;
  const print = () => context.messages.raw(`    (${percent.toFixed(2)}/100%)\n`);
  return {
    begin() {
      process.on('SIGUSR1', print);
    },
    update(done, total) {
      percent = share(done, total);
    },
    seldom: true,
    release() {},
    complete() {},
    end() {
      process.off('SIGUSR1', print);
    },
  };
}

function jsonLines(context: Context): ProgressDisplay {
  let shown = -1;
  let last: readonly [number, number] = [0, 0];
  const show = (done: number, total: number, percent: number) => {
    shown = percent;
    context.messages.raw(`${JSON.stringify({ done, total, percent: Number(percent.toFixed(2)) })}\n`);
  };
  return {
    begin() {},
    update(done, total) {
      last = [done, total];
      const percent = share(done, total);
      if (percent !== shown && (percent >= shown + 1 || percent === 100 || shown < 0)) show(done, total, percent);
    },
    release() {},
    complete() {
      const [, total] = last;
      if (shown !== 100) show(total, total, 100);
    },
    end() {},
  };
}

const BAR_WIDTH = 30;
const BAR_INTERVAL_MS = 100;

function bar(context: Context): ProgressDisplay {
  const started = performance.now();
  let drawnAt = -Infinity;
  let standing = false;
  let last: readonly [number, number] = [0, 0];
  const draw = (done: number, total: number) => {
    const seconds = (performance.now() - started) / 1000;
    context.messages.raw(`\r${barLine(done, total, seconds)}\x1b[K`);
    drawnAt = performance.now();
    standing = true;
  };
  const release = () => {
    if (standing) context.messages.raw('\n');
    standing = false;
  };
  return {
    begin() {},
    update(done, total) {
      last = [done, total];
      if (performance.now() - drawnAt >= BAR_INTERVAL_MS) draw(done, total);
    },
    release,
    complete() {
      const [, total] = last;
      draw(total, total);
      release();
    },
    end: release,
  };
}

/** `####----  42%  1.2 GiB of 2.9 GiB  850 MiB/s  0:03 left`; bytes and seconds. */
export function barLine(done: number, total: number, seconds: number): string {
  const percent = share(done, total);
  const filled = Math.round((percent / 100) * BAR_WIDTH);
  const parts = [
    '#'.repeat(filled) + '-'.repeat(BAR_WIDTH - filled),
    `${Math.floor(percent)}%`.padStart(4),
    `${formatSize(Math.round(done))} of ${formatSize(Math.round(total))}`,
  ];
  const rate = seconds > 0.2 ? done / seconds : 0;
  if (rate > 0) {
    parts.push(`${formatSize(Math.round(rate))}/s`);
    if (done < total) parts.push(`${clock((total - done) / rate)} left`);
  }
  return parts.join('  ');
}

function clock(seconds: number): string {
  const whole = Math.ceil(seconds);
  const minutes = Math.floor(whole / 60);
  const rest = String(whole % 60).padStart(2, '0');
  return minutes < 60
    ? `${minutes}:${rest}`
    : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, '0')}:${rest}`;
}
