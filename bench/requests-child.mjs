/**
 * 4 KiB requests on an image in this process, in the pattern of `qemu-img bench`: ascending offsets that wrap at the end.
 * Arguments: read|write, file, requests, depth, format, bytes from one request to the next. Prints requests per second.
 */
import { open } from '../dist/lib/node/index.js';

const [, , kind, path, countText, depthText, format = 'vdi', stepText = '4096'] = process.argv;
const count = Number(countText);
const step = Number(stepText);
const SIZE = 4096;

const disk = await open(path, { format, writable: kind === 'write' });
let next = 0;

async function worker() {
  const buffer = new Uint8Array(SIZE);
  while (next < count) {
    const offset = (next++ * step) % disk.length;
    if (kind === 'read') await disk.read(offset, buffer);
    else await disk.write(offset, buffer);
  }
}

const start = performance.now();
await Promise.all(Array.from({ length: Number(depthText) }, worker));
const seconds = (performance.now() - start) / 1000;
await disk.close();
process.stdout.write(`${Math.round(count / seconds)}\n`);
