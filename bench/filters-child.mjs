/**
 * Random 4 KiB requests on a raw disk in this process, through a filter or none, one at a time.
 * Arguments: read|write, filter (none, blkdebug, blkverify, log, blkdebug+rule), folder with disk.raw, copy.raw and disk.log.
 * Prints requests per second of this process's own time, the median of slices: so other work on the machine hardly shows.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { open } from '../dist/lib/node/index.js';

const [, , kind, filter, folder] = process.argv;
const SIZE = 4096;
const SLICES = 40;
/** What is written through the log makes it longer. */
const SLICE = process.argv[2] === 'write' ? 1000 : 10_000;

const file = (name) => ({ driver: 'file', filename: join(folder, name) });
const disk = file('disk.raw');
const STACKS = {
  none: () => disk,
  blkdebug: () => ({ driver: 'blkdebug', image: disk }),
  // One that fits no request: what it costs to look.
  'blkdebug+rule': () => ({ driver: 'blkdebug', image: disk, 'inject-error': { event: 'none', sector: 2 ** 40 } }),
  blkverify: () => ({ driver: 'blkverify', test: disk, raw: file('copy.raw') }),
  log() {
    writeFileSync(join(folder, 'disk.log'), '');
    return { driver: 'log', file: disk, log: file('disk.log') };
  },
};

const opened = await open({ driver: 'raw', file: STACKS[filter]() }, { writable: kind === 'write' });
const buffer = new Uint8Array(SIZE).fill(1);
const blocks = opened.length / SIZE;
let state = 1;

async function slice() {
  const start = process.cpuUsage();
  for (let i = 0; i < SLICE; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const offset = (state % blocks) * SIZE;
    if (kind === 'read') await opened.read(offset, buffer);
    else await opened.write(offset, buffer);
  }
  const { user, system } = process.cpuUsage(start);
  return SLICE / ((user + system) / 1e6);
}

// Until all is compiled.
for (let i = 0; i < 5; i++) await slice();
const rates = [];
for (let i = 0; i < SLICES; i++) rates.push(await slice());
await opened.close();
rates.sort((a, b) => a - b);
process.stdout.write(`${Math.round(rates[SLICES / 2])}\n`);
