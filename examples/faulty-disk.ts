/** A disk that fails on purpose: the third write gets EIO, and one byte of what is read may be wrong. */
import { faultyDisk } from 'diskwright/testing';

const { disk, control } = await faultyDisk({
  size: 1 << 20,
  seed: 42,
  rules: [{ event: 'none', ioTypes: ['write'], after: 2, once: true, errno: 'EIO' }],
});

for (let i = 0; i < 4; i++) {
  await disk.write(i * 512, new Uint8Array(512).fill(i)).then(
    () => console.log(`write ${i} done`),
    (error) => console.log(`write ${i}: ${error.code}`),
  );
}

const rule = control.add({ event: 'none', ioTypes: ['read'], action: 'corrupt', bits: [3] });
console.log((await disk.read(0, 512))[0]);
control.remove(rule);
console.log((await disk.read(0, 512))[0]);
await disk.close();
