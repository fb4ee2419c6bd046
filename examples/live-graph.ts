/** Changes the graph under a disk that is in use. Leaves disk.vdi and changes.vdi in the current folder. */
import { create, defaultGraph } from 'diskwright/node';

await create('disk.vdi', { size: '1G' });
const graph = defaultGraph();
{
  await using disk = await graph.open('disk.vdi', { writable: true, nodeName: 'base' });
  await disk.write(0, new TextEncoder().encode('before'));
  const show = (what: string) => {
    console.log(`${what}: ${graph.nodes().map((node) => node.driver.name)}`);
  };

  // What is read from now on goes through a filter that copies up what it finds below.
  const filter = await graph.insertFilter(disk, { driver: 'copy-on-read' });
  show('with a filter');
  await graph.removeFilter(filter);

  // What is written from now on goes into an overlay.
  await graph.snapshot(disk, 'changes.vdi');
  await disk.write(0, new TextEncoder().encode('after '));
  show('with a snapshot');
  console.log(disk.filename);

  await graph.commit(disk);
  await graph.reopen([{ node: 'base', options: { 'cache.no-flush': true } }]);
}
{
  await using disk = await graph.open('disk.vdi');
  console.log(new TextDecoder().decode(await disk.read(0, 6)));
}
