/** Q-ORD-1, Q-ORD-11, Q-AM-5: the power goes while encrypted images are written, or get other passphrases. */
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import type { Disk } from '../../src/core/disk.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { secrets } from '../../src/crypto/secrets.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import {
  type CrashScenario,
  checkDurability,
  exploreCrashes,
  type RecordedDisk,
  recordDisk,
  SimHost,
  type SimImage,
} from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { readQcow2 } from '../support/qcow2-bytes.ts';
import { quickCrypto } from '../support/quick-crypto.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';

const CLUSTER = 512;
const SIZE = 100 * CLUSTER;

/** Lets what is opened on the host name its secrets. */
function know(host: SimHost): SimHost {
  secrets(host).set('s', 'open sesame').set('n', 'another');
  return Object.assign(host, { crypto: quickCrypto });
}

function open(host: SimHost, writable: boolean): Promise<Disk> {
  const driverOptions = { 'encrypt.key-secret': 's' };
  return graphOn(know(host)).open(PATH, { format: 'qcow2', writable, driverOptions });
}

async function newImage(options: OptionTree, isAes: boolean): Promise<SimImage> {
  const host = know(new SimHost({ record: false }));
  const all = { cluster_size: CLUSTER, ...options };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: SIZE, options: all });
  if (isAes) {
    const file = await host.files.open(PATH, { write: true });
    await file.write(32, Uint8Array.of(0, 0, 0, 1));
    await file.close();
  }
  const disk = await open(host, true);
  await disk.write(0, operationData(99, 7 * CLUSTER));
  await disk.close();
  return host.snapshot();
}

async function scenario(image: SimImage, work: (disk: RecordedDisk<Disk>, plain: Disk) => Promise<void>) {
  const before = await open(new SimHost({ record: false }, image), false);
  const initial = await before.read(0, SIZE);
  await before.close();
  const built: CrashScenario = {
    start: () => new SimHost({ record: true }, image),
    async workload(host) {
      const disk = await open(host, true);
      const recorded = recordDisk(host, disk);
      await work(recorded, disk);
      await recorded.close();
    },
    async check(host, point) {
      const { problems } = readQcow2(host.contents(PATH));
      if (problems.length > 0) throw new Error(`the image is corrupt: ${problems.join('; ')}`);
      const disk = await open(host, false);
      await checkDurability(disk, point.notes, initial);
      await disk.close();
    },
  };
  return built;
}

async function writes(disk: RecordedDisk<Disk>): Promise<void> {
  await disk.write(3 * CLUSTER + 100, operationData(1, 900));
  await disk.write(20 * CLUSTER, operationData(2, 3 * CLUSTER));
  await disk.flush();
  await disk.discard(0, 2 * CLUSTER);
  await disk.write(30 * CLUSTER + 7, operationData(3, 40));
  await disk.flush();
  await disk.writeZeroes(20 * CLUSTER, CLUSTER, { unmap: true });
  await disk.write(CLUSTER, operationData(4, 2 * CLUSTER));
}

describe('crashes of encrypted images', () => {
  const LUKS = { 'encrypt.format': 'luks', 'encrypt.key-secret': 's' };
  test('legacy AES, being written', async () => {
    const crashes = await scenario(await newImage({}, true), writes);
    const { states } = await exploreCrashes(crashes, { seed: testSeed, statesPerCut: longMode ? 300 : 12 });
    expect(states).toBeGreaterThan(20);
  });

  test('LUKS, being written', async () => {
    const crashes = await scenario(await newImage(LUKS, false), writes);
    const { states } = await exploreCrashes(crashes, { seed: testSeed, statesPerCut: longMode ? 100 : 2 });
    expect(states).toBeGreaterThan(10);
  });

  test('LUKS, given another passphrase, of which it is deprived again: the first one always opens it', async () => {
    const crashes = await scenario(await newImage(LUKS, false), async (_recorded, disk) => {
      await disk.amend({ 'encrypt.state': 'active', 'encrypt.new-secret': 'n', 'encrypt.keyslot': 6 });
      await disk.amend({ 'encrypt.state': 'inactive', 'encrypt.old-secret': 'n' });
    });
    const { states } = await exploreCrashes(crashes, { seed: testSeed, statesPerCut: longMode ? 100 : 8 });
    expect(states).toBeGreaterThan(6);
  });
});
