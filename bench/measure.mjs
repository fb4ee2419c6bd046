/** Running programs side by side and comparing their times. */
import { spawnSync } from 'node:child_process';
import { writeSync } from 'node:fs';

// Where this names a file, Node decodes all certificates in it at its start: 38 ms for those of a Debian.
delete process.env.NODE_EXTRA_CA_CERTS;

/** Runs a program to its end; milliseconds of wall time. Its output goes nowhere. Throws if it fails. */
export function timeProgram([program, ...args], { statuses = [0] } = {}) {
  const start = process.hrtime.bigint();
  const result = spawnSync(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const milliseconds = Number(process.hrtime.bigint() - start) / 1e6;
  if (result.error) throw result.error;
  if (!statuses.includes(result.status)) {
    throw new Error(`${program} ${args.join(' ')} ended with ${result.status ?? result.signal}: ${result.stderr}`);
  }
  return milliseconds;
}

/** The most memory a program had resident, in KiB, by GNU time; undefined where that is not installed. */
export function peakMemory(command) {
  const result = spawnSync('/usr/bin/time', ['-f', '%M', ...command], {
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
  });
  if (result.error || result.status !== 0) return undefined;
  return Number(result.stderr.trim().split('\n').at(-1));
}

/** What a program prints on standard output. */
export function outputOf([program, ...args]) {
  const result = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 64 << 20 });
  if (result.error) throw result.error;
  if (result.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${result.stderr}`);
  return result.stdout;
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Measures two sides in turn, `runs` times after one round that does not count, and in both orders alike, so that
 * what else the machine does and what the first leaves behind hits both.
 */
export async function sideBySide({ ours, peer, runs }) {
  const times = { ours: [], peer: [] };
  for (let run = -1; run < runs; run++) {
    const order =
      run % 2 === 0
        ? [
            ['ours', ours],
            ['peer', peer],
          ]
        : [
            ['peer', peer],
            ['ours', ours],
          ];
    for (const [side, measure] of order) {
      const value = await measure();
      if (run >= 0) times[side].push(value);
    }
    writeSync(2, '.');
  }
  writeSync(2, '\r\u001b[K');
  return times;
}
