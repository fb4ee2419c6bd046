/** A drive whose media are changed, with limits of its own. Leaves first.vdi and second.vdi in the current folder. */
import { subscribe } from 'node:diagnostics_channel';
import { create, DRIVERS, Graph, namedNodes, nodeHost, parseThrottleLimits, throttleGroups } from 'diskwright/node';

await create('first.vdi', { size: '1M' });
await create('second.vdi', { size: '2M' });

subscribe('diskwright:device:tray-moved', (message) => console.log(JSON.stringify(message)));

const host = nodeHost();
const graph = new Graph({ host, drivers: DRIVERS });
const drive = graph.devices.add('cd0', {
  tray: true,
  listener: { mediumChanged: (loaded) => console.log(loaded ? 'there is a medium' : 'the medium is gone') },
});
drive.limitIo(
  throttleGroups(host)
    .add('slow', parseThrottleLimits({ 'limits.bps-total': 1 << 20 }))
    .join(),
);

await drive.openTray();
await drive.insert('first.vdi', { format: 'vdi', writable: true });
await drive.closeTray();
await drive.write(0, new TextEncoder().encode('Hello, drive'));

await drive.eject();
await drive.insert('second.vdi', { format: 'vdi' });
await drive.closeTray();
for (const node of namedNodes(graph, { flat: true }))
  console.log(`${node.drv}: ${node.image['virtual-size']}, ${node.bps}`);

await graph.closeAll();
