/** Q-LIM-1, Q-CRYPT-2: whatever the header of LUKS holds, an image gives bytes or a BlockError, in bounded time. */
import { expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import { BlockError } from '../../src/core/errors.ts';
import { secrets } from '../../src/crypto/secrets.ts';
import { SeededRandom, SimHost } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { quickCrypto } from '../support/quick-crypto.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';

const SIZE = 300_000;
/** Where a new image of this kind has the pointer to the header of LUKS, and that header. */
const POINTER = 112;
const HEADER = 4 * 65536;
const HEADER_BYTES = 592;

function newHost(): SimHost {
  const host = Object.assign(new SimHost({ record: false, operationBudget: 100_000, capacity: 64 << 20 }), {
    crypto: quickCrypto,
  });
  secrets(host).set('s', 'open sesame');
  return host;
}

const rounds = longMode ? 3000 : 120;

test(`${rounds} broken headers of LUKS`, async () => {
  const first = newHost();
  const options = { 'encrypt.format': 'luks', 'encrypt.key-secret': 's' };
  await createImage(graphOn(first), { filename: PATH, format: 'qcow2', size: SIZE, options });
  const sound = first.contents(PATH);
  let opened = 0;
  for (let seed = testSeed; seed < testSeed + rounds; seed++) {
    const random = new SeededRandom(seed);
    const bytes = sound.slice();
    const view = new DataView(bytes.buffer);
    for (let i = random.between(1, 3); i > 0; i--) {
      const at = random.chance(0.8) ? HEADER + random.below(HEADER_BYTES) : POINTER + random.below(24);
      const word = at - (at % 4);
      if (random.chance(0.5)) bytes[at] = random.below(256);
      else view.setUint32(word, random.pick([0, 1, 7, 8, 4040, 0x00ac71f3, 0x7fffffff, 0x80000000, 0xffffffff]));
    }
    const host = newHost();
    host.put(PATH, bytes);
    try {
      const driverOptions = { 'encrypt.key-secret': 's' };
      const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: seed % 2 === 0, driverOptions });
      opened++;
      await disk.read(0, SIZE);
      if (disk.writable) await disk.write(5000, new Uint8Array(70_000).fill(3));
      await disk.close();
    } catch (error) {
      if (!(error instanceof BlockError)) throw new Error(`seed ${seed}: ${error}`, { cause: error });
    }
    expect(host.openFiles).toEqual([]);
  }
  // Salts, other slots and identifiers do not matter.
  expect(opened).toBeGreaterThan(rounds / 20);
});
