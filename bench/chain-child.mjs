/** Opens an image with all that lie below it, in this process, and prints how many milliseconds that took. Argument: file. */
import { open } from '../dist/lib/node/index.js';

const [, , path] = process.argv;
// What every program pays once: files, locks, system calls.
await (await open(`${path}.raw`, { format: 'raw' })).close();
const start = performance.now();
const disk = await open(path, { format: 'qcow2' });
const milliseconds = performance.now() - start;
await disk.close();
process.stdout.write(`${milliseconds}\n`);
