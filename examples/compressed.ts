/** Images that take less room. Leaves disk.vdi and small.qcow2 in the current folder. */
import { check, convert, create, open } from 'diskwright/node';

await create('disk.vdi', { size: '8M' });
{
  await using disk = await open('disk.vdi', { writable: true });
  await disk.write(0, new TextEncoder().encode('All work and no play. '.repeat(90_000)));
}
await convert('disk.vdi', 'small.qcow2', {
  targetFormat: 'qcow2',
  createOptions: { compression_type: 'zstd' },
  compress: true,
});
{
  await using disk = await open('small.qcow2', { writable: true });
  const bytes = new Uint8Array(65536).fill(7);
  // Whole clusters, or up to the end of the disk.
  await disk.write(4 * 65536, bytes, { compressed: true });
}
const { report } = await check('small.qcow2');
console.log(`${report.compressedClusters} of ${report.totalClusters} clusters are stored, compressed`);
