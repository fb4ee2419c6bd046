/** Keeps changes in an image of their own, and puts them into the base. Leaves base.vdi and changes.vdi in the current folder. */
import { commit, create, infoChain, open, rebase } from 'diskwright/node';

await create('base.vdi', { size: '1G' });
await create('changes.vdi', { backing: { filename: 'base.vdi', format: 'vdi' } });
{
  await using disk = await open('changes.vdi', { writable: true });
  await disk.write(0, new TextEncoder().encode('Hello, base'));
}
for (const { filename, backing } of await infoChain('changes.vdi')) {
  console.log(backing === undefined ? `${filename} stands alone` : `${filename} is based on ${backing.filename}`);
}

await commit('changes.vdi');
{
  await using disk = await open('base.vdi');
  console.log(new TextDecoder().decode(await disk.read(0, 11)));
}

// All that comes from below is copied up.
await rebase('changes.vdi', { backing: undefined });
console.log((await infoChain('changes.vdi')).length);
