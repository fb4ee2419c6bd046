/** A mirror that says which byte is wrong: a disk that writes to the wrong place, beside one that does not. */
import { DRIVERS, Graph } from 'diskwright';
import { blkverifyOf, MismatchError, SimHost } from 'diskwright/testing';

const graph = new Graph({ host: new SimHost(), drivers: DRIVERS });
const size = 1 << 20;
await using disk = await graph.open(
  {
    driver: 'blkverify',
    raw: { driver: 'memory', size },
    test: {
      driver: 'blkdebug',
      image: { driver: 'memory', size },
      // The third write goes astray.
      'inject-error': { event: 'none', iotype: 'write', action: 'misdirect', target: '64k', after: 2, once: true },
    },
  },
  { writable: true },
);

for (let i = 0; i < 4; i++) await disk.write(i * 4096, new Uint8Array(4096).fill(i + 1));
await disk.read(0, 8192);
await disk.read(4096, 8192).catch((error) => {
  if (!(error instanceof MismatchError)) throw error;
  console.log(error.message.split('\n')[0]);
});

const mirror = blkverifyOf(disk);
const { requests, mismatches } = mirror.counts();
console.log(`${requests} requests, ${mismatches} of them wrong`);
// What no request has read yet.
await mirror.verify().catch(({ message }) => console.log(message.split('\n')[0]));
