/** Records a disk's changes, and makes of a copy what the disk was at a mark. Leaves three files in the current folder. */
import { copyFileSync, writeFileSync } from 'node:fs';
import { create, open } from 'diskwright/node';
import { logEntries, markLog, replayLog } from 'diskwright/testing';

await create('disk.raw', { format: 'raw', size: '1M' });
copyFileSync('disk.raw', 'copy.raw');
writeFileSync('disk.log', '');

const file = (filename: string) => ({ driver: 'file', filename });
{
  await using disk = await open({ driver: 'log', file: file('disk.raw'), log: file('disk.log') }, { writable: true });
  await disk.write(0, new Uint8Array(512).fill(1));
  await disk.flush();
  await markLog(disk, 'saved');
  await disk.write(0, new Uint8Array(512).fill(2), { fua: true });
  await disk.discard(4096, 4096);
}

await using log = await open('disk.log', { format: 'raw' });
for await (const { index, entry } of logEntries(log)) {
  const range = 'offset' in entry ? ` ${entry.offset}+${entry.length}` : '';
  console.log(`${index} ${entry.kind}${range}${entry.kind === 'write' && entry.fua ? ' fua' : ''}`);
}

await using copy = await open('copy.raw', { format: 'raw', writable: true });
const { next } = await replayLog(log, copy, { untilMark: 'saved' });
console.log(`at the mark: ${(await copy.read(0, 1))[0]}`);
await replayLog(log, copy, { from: next });
console.log(`at the end: ${(await copy.read(0, 1))[0]}`);
