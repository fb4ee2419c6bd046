/** Damages a VDI, finds that, repairs it. Leaves damaged.vdi in the current folder. */
import { open as openFile } from 'node:fs/promises';
import { check, create, open } from 'diskwright/node';

await create('damaged.vdi', { size: '16M' });
{
  await using disk = await open('damaged.vdi', { writable: true });
  await disk.write(0, new Uint8Array(4096).fill(1));
}

// The number of allocated blocks, at byte 0x184 of the header, is 1 now.
const file = await openFile('damaged.vdi', 'r+');
await file.write(Uint8Array.of(0, 0, 0, 0), 0, 4, 0x184);
await file.close();

const before = await check('damaged.vdi', { finding: (line) => console.log(line) });
console.log(`corruptions: ${before.report.corruptions}`);

const after = await check('damaged.vdi', { repair: 'all' });
console.log(`repaired: ${after.repaired?.corruptions}, left: ${after.report.corruptions}`);
