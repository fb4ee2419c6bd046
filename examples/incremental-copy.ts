/** Copies a disk once, then again only what was changed since. Leaves work.vdi and copy.vdi in the current folder. */
import { bitmaps, compare, convert, create, open } from 'diskwright/node';

await create('work.vdi', { size: '1G' });
await convert('work.vdi', 'copy.vdi', { targetFormat: 'vdi' });

{
  await using disk = await open('work.vdi', { writable: true });
  await bitmaps(disk).add('since-copy');
  await disk.write(300_000_000, new TextEncoder().encode('a change'));
  await disk.writeZeroes(0, 4096);

  await using copy = await open('copy.vdi', { writable: true });
  for (const { offset, length } of bitmaps(disk).dirtyAreas('since-copy')) {
    console.log(`${offset}: ${length} bytes`);
    await copy.write(offset, await disk.read(offset, length));
  }
}

const { kind } = await compare('work.vdi', 'copy.vdi');
console.log(kind);
