/** Makes a VDI, writes to it, reads it back. Leaves first.vdi in the current folder. */
import { create, open } from 'diskwright/node';

await create('first.vdi', { size: '1G' });

{
  await using disk = await open('first.vdi', { writable: true });
  await disk.write(512, new TextEncoder().encode('Hello, disk'));
  await disk.flush();
}

await using disk = await open('first.vdi');
const bytes = await disk.read(512, 11);
console.log(new TextDecoder().decode(bytes));
console.log(`${disk.format}, ${disk.length} bytes, ${disk.allocatedSize()} of them in use on the host`);
