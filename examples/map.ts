/** Shows where the parts of a disk are stored. Leaves sparse.vdi in the current folder. */
import { create, map, open } from 'diskwright/node';

await create('sparse.vdi', { size: '1T' });
{
  await using disk = await open('sparse.vdi', { writable: true });
  for (const gigabyte of [0, 10, 900]) await disk.write(gigabyte * 2 ** 30, new Uint8Array(65536).fill(1));
}

for await (const { start, length, data, offset } of map('sparse.vdi')) {
  console.log(data ? `${start}: ${length} bytes at ${offset} of the file` : `${start}: ${length} bytes of zeroes`);
}
