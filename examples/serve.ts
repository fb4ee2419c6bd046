/** A disk served by NBD, on a socket and over a MessageChannel, and read by a client of the same library. */
import { MessageChannel } from 'node:worker_threads';
import { create, NbdServer, open, type PortLike, portStream, serve } from 'diskwright/node';

await create('disk.vdi', { size: '16M' });

await using disk = await open('disk.vdi', { writable: true });
await using served = await serve(disk, { name: 'backup', socket: 'disk.sock' });

{
  await using client = await open(served.uri, { format: 'raw', writable: true });
  await client.write(1000, new TextEncoder().encode('over a socket'));
  await client.flush();
}
process.stdout.write(`${new TextDecoder().decode(await disk.read(1000, 13))}\n`);
const { connectionsEver, bytesWritten } = served.stats();
process.stdout.write(`clients: ${connectionsEver}, bytes written: ${bytesWritten}\n`);

const { port1, port2 } = new MessageChannel();
const server = new NbdServer(disk.graph.host);
server.addExport(disk);
server.accept(portStream(port1 as unknown as PortLike));

// The other end may be in a page, a frame or a worker: whoever speaks NBD. Here, only its first bytes.
const greeting = await new Promise<Uint8Array>((resolve) => {
  const page = portStream(port2 as unknown as PortLike);
  page.listen({
    data(bytes) {
      page.destroy();
      resolve(bytes);
    },
    end() {},
    close() {},
  });
});
process.stdout.write(`${new TextDecoder().decode(greeting.subarray(0, 8))}\n`);
await server.close();
