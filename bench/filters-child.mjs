/**
 * Random 4 KiB requests on a raw disk in this process, one at a time: on one through a filter and on one without, by turns,
 * so that other work hits both alike. Arguments: read|write, filter (blkdebug, blkdebug+rule, blkverify, log), folder with
 * plain.raw, disk.raw, copy.raw. Prints requests per second of both, with the filter first: medians of slices.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { open } from '../dist/lib/node/index.js';

const [, , kind, filter, folder] = process.argv;
const SIZE = 4096;
const SLICES = 100;
/** What is written through the log makes it longer. */
const SLICE = kind === 'write' ? 200 : 2000;

const file = (name) => ({ driver: 'file', filename: join(folder, name) });
const disk = file('disk.raw');
const STACKS = {
  blkdebug: () => ({ driver: 'blkdebug', image: disk }),
  // One that fits no request: what it costs to look.
  'blkdebug+rule': () => ({ driver: 'blkdebug', image: disk, 'inject-error': { event: 'none', sector: 2 ** 40 } }),
  blkverify: () => ({ driver: 'blkverify', test: disk, raw: file('copy.raw') }),
  log() {
    writeFileSync(join(folder, 'disk.log'), '');
    return { driver: 'log', file: disk, log: file('disk.log') };
  },
};

const raw = (below) => open({ driver: 'raw', file: below }, { writable: kind === 'write' });
const [filtered, plain] = [await raw(STACKS[filter]()), await raw(file('plain.raw'))];
const buffer = new Uint8Array(SIZE).fill(1);
const blocks = plain.length / SIZE;
let state = 1;

async function slice(opened) {
  const start = performance.now();
  for (let i = 0; i < SLICE; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const offset = (state % blocks) * SIZE;
    if (kind === 'read') await opened.read(offset, buffer);
    else await opened.write(offset, buffer);
  }
  return SLICE / ((performance.now() - start) / 1000);
}

const rates = { filtered: [], plain: [] };
// The first ones do not count: until all is compiled.
for (let i = -20; i < SLICES; i++) {
  const order = i % 2 === 0 ? ['filtered', 'plain'] : ['plain', 'filtered'];
  for (const which of order) {
    const rate = await slice(which === 'plain' ? plain : filtered);
    if (i >= 0) rates[which].push(rate);
  }
}
await filtered.close();
await plain.close();
const median = (values) => Math.round(values.sort((a, b) => a - b)[SLICES / 2]);
process.stdout.write(`${median(rates.filtered)} ${median(rates.plain)}\n`);
