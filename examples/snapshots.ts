/** Keeps moments of a disk inside its image. Leaves disk.qcow2 in the current folder. */
import { convert, create, open } from 'diskwright/node';

await create('disk.qcow2', { size: '1G', format: 'qcow2' });
{
  await using disk = await open('disk.qcow2', { writable: true });
  const text = async () => new TextDecoder().decode(await disk.read(0, 6));

  await disk.write(0, new TextEncoder().encode('before'));
  await disk.snapshots.create('before the update');
  await disk.write(0, new TextEncoder().encode('after '));
  await disk.snapshots.create('after the update');

  await disk.snapshots.apply('before the update');
  console.log(await text());
  await disk.snapshots.delete('before the update');
  for (const { id, name } of disk.snapshots.list()) console.log(`${id}: ${name}`);
}
{
  // What is shown is the moment, and the disk stays what it is.
  await using disk = await open('disk.qcow2');
  await disk.snapshots.show('after the update');
  console.log(new TextDecoder().decode(await disk.read(0, 6)));
}
await convert('disk.qcow2', 'after.vdi', { snapshot: 'after the update' });
{
  await using disk = await open('after.vdi');
  console.log(new TextDecoder().decode(await disk.read(0, 6)));
}
