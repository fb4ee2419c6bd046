/** Converts with progress, and stops when asked to. Leaves source.raw and target.vdi in the current folder. */
import { BlockError, compare, convert, create, open } from 'diskwright/node';

await create('source.raw', { size: '256M' });
{
  await using disk = await open('source.raw', { format: 'raw', writable: true });
  await disk.write(100 << 20, new Uint8Array(8 << 20).fill(7));
}

const stop = new AbortController();
process.once('SIGINT', () => stop.abort());

try {
  await convert('source.raw', 'target.vdi', {
    sourceFormat: 'raw',
    signal: stop.signal,
    progress: (done, total) => console.log(`${Math.floor((100 * done) / total)} %`),
  });
} catch (error) {
  // A conversion that failed leaves no target behind.
  if (error instanceof BlockError && error.code === 'ENOSPC') console.error('the disk is full');
  throw error;
}

const { kind } = await compare('source.raw', 'target.vdi');
console.log(kind);
