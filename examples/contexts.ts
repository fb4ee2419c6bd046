/** Reads a disk with threads of its own: should it hang, nothing else does. Leaves remote.vdi in the current folder. */
import { create, DRIVERS, Graph, nodeHost, setContext } from 'diskwright/node';

await create('remote.vdi', { size: '16M' });

const host = nodeHost();
const graph = new Graph({ host, drivers: DRIVERS });
const context = host.createContext('remote', { threads: 2 });
const disk = await graph.open({ driver: 'vdi', file: { driver: 'file', filename: 'remote.vdi' } }, { context });

await disk.read(0, 65536);
console.log(`read in context ${disk.node.context?.name}`);

await setContext(graph, disk.node, undefined);
await context.close();
await disk.read(0, 65536);
console.log('read in the main context');
await disk.close();
