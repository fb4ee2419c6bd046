/**
 * Measures diskwright beside qemu-img and prints a table in Markdown.
 *
 *   node bench/run.mjs [--runs 7] [--sizes 2048,4096] [--disk FOLDER] [--memory FOLDER|none] [--keep] [WORD…]
 *
 * WORDs choose cases whose name has them all. SIZEs of copied images are in MiB; those of one size need up to one and a half
 * times as much storage at a time. Images are made in a new folder below the given ones (default: the
 * temporary folder, and /dev/shm) and removed at the end. A quiet machine is needed: other work shows in the numbers.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { build } from '../scripts/build.mjs';
import { allCases } from './cases.mjs';
import { describeMachine, fileSystemOf } from './machine.mjs';
import { median, outputOf, peakMemory, sideBySide } from './measure.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: '7' },
    sizes: { type: 'string', default: '2048,4096' },
    disk: { type: 'string', default: tmpdir() },
    memory: { type: 'string', default: '/dev/shm' },
  },
});
const runs = Number(values.runs);

try {
  outputOf(['qemu-img', '--version']);
} catch {
  process.stderr.write(
    'bench: qemu-img is not installed (Debian: apt-get install qemu-utils): nothing to compare with\n',
  );
  process.exit(1);
}
await build();

const folders = [];
function scratch(parent) {
  const folder = mkdtempSync(join(parent, 'diskwright-bench-'));
  folders.push(folder);
  return folder;
}
function clean() {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    clean();
    process.exit(1);
  });
}

const number = (value, unit) => (unit === 'ms' ? value.toFixed(value < 100 ? 1 : 0) : String(Math.round(value)));

/** A case's line of the table. */
function row({ name, unit, target, targetDifference }, { ours, peer }, memory) {
  const [a, b] = [median(ours), median(peer)];
  const ratio = a / b;
  let verdict;
  if (targetDifference !== undefined) {
    verdict = `+${(a - b).toFixed(0)} ms (≤ +${targetDifference}) ${a - b <= targetDifference ? 'met' : 'MISSED'}`;
  } else {
    const met = unit === 'ms' ? ratio <= target : ratio >= target;
    verdict = `${ratio.toFixed(2)} (${unit === 'ms' ? '≤' : '≥'} ${target}) ${met ? 'met' : 'MISSED'}`;
  }
  const spread = (values) => `${number(Math.min(...values), unit)}…${number(Math.max(...values), unit)}`;
  const cells = [name, `${number(a, unit)} (${spread(ours)})`, `${number(b, unit)} (${spread(peer)})`, unit, verdict];
  return `| ${[...cells, memory === undefined ? '' : `+${Math.round(memory / 1024)} MiB`].join(' | ')} |\n`;
}

try {
  const disk = scratch(values.disk);
  const memory = values.memory !== 'none' && existsSync(values.memory) ? scratch(values.memory) : undefined;
  const baseMemory = peakMemory([process.execPath, '-e', '0']) ?? 0;
  process.stdout.write(
    `${describeMachine()
      .map((line) => `- ${line}\n`)
      .join('')}`,
  );
  process.stdout.write(`- ${fileSystemOf(disk)}${memory === undefined ? '' : ` and ${fileSystemOf(memory)}`}; `);
  process.stdout.write(`medians of ${runs} runs, least and most in brackets\n\n`);
  process.stdout.write(
    '| case | diskwright | peer | unit | ratio (target) | memory above Node |\n|---|---|---|---|---|---|\n',
  );
  const folders = memory === undefined ? [disk] : [disk, memory];
  for (const { name, make, after } of allCases(folders, values.sizes.split(',').map(Number))) {
    if (!positionals.every((word) => name.includes(word))) {
      after?.();
      continue;
    }
    const one = make();
    const times = await sideBySide({ ours: one.ours, peer: one.peer, runs });
    const peak = one.memory?.();
    one.clean?.();
    after?.();
    process.stdout.write(row({ name, ...one }, times, peak === undefined ? undefined : peak - baseMemory));
  }
} finally {
  clean();
}
