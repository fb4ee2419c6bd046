/** Faults by rules: from a config file, from states, and on an open disk. Leaves disk.raw and full.conf in the current folder. */
import { writeFileSync } from 'node:fs';
import { create, open } from 'diskwright/node';
import { blkdebugOf } from 'diskwright/testing';

await create('disk.raw', { format: 'raw', size: '1M' });
const attempt = async (what: string, work: Promise<unknown>) =>
  console.log(`${what}: ${await work.then(() => 'done').catch((error) => error.message)}`);
const data = new Uint8Array(4096).fill(7);

// The disk is full at the first write after a flush, and fine afterwards.
writeFileSync(
  'full.conf',
  `[set-state]
event = "flush_to_disk"
state = "1"
new_state = "2"

[inject-error]
event = "pwritev"
state = "2"
errno = "28"
once = "on"
`,
);
{
  await using disk = await open('blkdebug:full.conf:disk.raw', { format: 'raw', writable: true, cache: 'writeback' });
  await attempt('first write', disk.write(0, data));
  await disk.flush();
  await attempt('second write', disk.write(4096, data));
  await attempt('third write', disk.write(4096, data));
}

// Rules come and go while the disk is open, and count what they hit.
await using disk = await open('blkdebug::disk.raw', { format: 'raw', writable: true });
const faults = blkdebugOf(disk.graph.nodes().find(({ driver }) => driver.name === 'blkdebug') ?? disk);
const torn = faults.add({ event: 'none', ioTypes: ['write'], action: 'torn', bytes: 512 });
await attempt('torn write', disk.write(8192, data));
console.log(`of it are there: ${(await disk.read(8192, 4096)).lastIndexOf(7) + 1} bytes`);
console.log(`hits: ${faults.rules().map(({ hits }) => hits)}`);
faults.remove(torn);

// A function decides about each request.
faults.setScenario(({ type, offset, events }) => {
  console.log(`${type} at ${offset}, after ${events.at(-1)}`);
  return type === 'read' ? { kind: 'corrupt', bits: [0] } : undefined;
});
console.log((await disk.read(0, 512))[0]);
