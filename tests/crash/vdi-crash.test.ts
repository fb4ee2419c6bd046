/** V-24, V-25: whenever the power goes, a VDI has no corruption, and what was flushed is all there. */
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import { operationData, randomOperations } from '../../src/testing/disk-operations.ts';
import { exploreCrashes, recordDisk, SimHost } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';
import { makeVdi, readVdi } from '../support/vdi-bytes.ts';
import { vdiImage } from '../support/vdi-image.ts';
import { runOperations } from './run-operations.ts';
import { PARENT_WORKLOADS } from './vdi-parent-workloads.ts';
import { checkSurvivor, crashScenario, PARENT, WORKLOADS } from './vdi-workloads.ts';

const statesPerCut = longMode ? 400 : 24;

describe('crashes of a VDI being written', () => {
  for (const workload of [...WORKLOADS, ...PARENT_WORKLOADS]) {
    test(workload.name, async () => {
      const scenario = await crashScenario(workload);
      const { cuts, states } = await exploreCrashes(scenario, { seed: testSeed, statesPerCut });
      expect(cuts).toBeGreaterThan(4);
      expect(states).toBeGreaterThan(20);
    });
  }

  const sequences = longMode ? 300 : 12;
  test(`${sequences} random sequences`, async () => {
    for (let seed = testSeed; seed < testSeed + sequences; seed++) {
      const length = 10 * 4096;
      // Every third over a parent.
      const parent = seed % 3 === 0;
      const operations = randomOperations(seed, {
        count: 14,
        length,
        blockSize: 4096,
        resize: { min: 512, max: 150 * 4096, step: 512 },
        weights: { together: 0, read: 0, status: 0, check: 0, reopen: 0, flush: 25, discard: 15 },
      });
      const scenario = await crashScenario({
        name: `seed ${seed}`,
        size: length,
        options: {
          'block-size': 4096,
          'data-align': seed % 4 < 2 ? 512 : '1M',
          ...(parent ? { parent: PARENT } : {}),
        },
        ...(parent ? { parent: () => vdiImage({ map: Array.from({ length: 20 }, (_, i) => i) }, { uuid: 1 }) } : {}),
        host: { seed, latency: { min: 0, max: seed % 3 } },
        run: (disk) => runOperations(disk, operations, seed % 2 === 0),
      });
      await exploreCrashes(scenario, { seed, statesPerCut: Math.ceil(statesPerCut / 3) });
    }
  });
});

describe('crashes of a repair', () => {
  /** Two blocks in one slot, one slot too large, a wrong count, and a leak. */
  const broken = () => {
    const bytes = makeVdi({ diskSize: 8 * 4096, blockSize: 4096, map: [2, 0, 2, 700, 4], slots: 6 });
    new DataView(bytes.buffer).setUint32(0x184, 7, true);
    return bytes;
  };

  test('never make it worse, and a second repair finishes', async () => {
    const sound = new SimHost({ record: false });
    sound.put(PATH, broken());
    const { content } = readVdi(broken());
    const good = content().subarray(4096, 2 * 4096);
    await exploreCrashes(
      {
        start() {
          const host = new SimHost();
          host.put(PATH, broken());
          return host;
        },
        async workload(host) {
          const disk = await graphOn(host).open(PATH, { format: 'vdi', writable: true, checkOnly: true });
          await disk.check({ repair: 'all', finding: () => {} });
          await disk.close();
        },
        async check(host) {
          const disk = await graphOn(host).open(PATH, { format: 'vdi', writable: true, checkOnly: true });
          const findings: string[] = [];
          const report = await disk.check({ repair: 'all', finding: (line) => void findings.push(line) });
          if (report.corruptions !== report.corruptionsFixed && report.corruptions !== 0) {
            throw new Error(`not repaired: ${JSON.stringify(report)}`);
          }
          const found = await disk.read(4096, 4096);
          if (found.some((byte, i) => byte !== good[i])) throw new Error('a sound block was changed');
          await disk.close();
          const { problems } = readVdi(host.contents(PATH));
          if (problems.length > 0) throw new Error(`still wrong: ${problems.join('; ')}`);
          const again = await graphOn(host).open(PATH, { format: 'vdi' });
          const second = await again.check({ repair: 'none', finding: (line) => void findings.push(line) });
          if (second.corruptions > 0) throw new Error(`a second check finds ${findings.join('; ')}`);
          await again.close();
        },
      },
      { seed: testSeed, statesPerCut },
    );
  });
});

describe('crashes of making an image', () => {
  test('leave no file that opens as something else than the new, empty image', async () => {
    await exploreCrashes(
      {
        start: () => new SimHost(),
        async workload(host) {
          const options = { 'block-size': 4096 };
          await createImage(graphOn(host), { filename: PATH, format: 'vdi', size: 10 * 4096, options });
          host.note('made');
        },
        async check(host, { notes }) {
          if (!host.exists(PATH) && notes.length === 0) return;
          const opened = await graphOn(host)
            .open(PATH, { format: 'vdi' })
            .catch(() => undefined);
          if (opened === undefined) {
            if (notes.length > 0) throw new Error('the image was made, and cannot be opened');
            return;
          }
          const content = await opened.read(0, opened.length);
          if (content.length !== 10 * 4096 || content.some((byte) => byte !== 0)) throw new Error('it is not empty');
          await opened.close();
        },
      },
      { seed: testSeed, statesPerCut },
    );
  });
});

describe('errors instead of crashes', () => {
  test('V-26: a failed allocation leaves the image sound, and the block can be written later', async () => {
    for (const operation of ['write', 'flush', 'truncate'] as const) {
      for (let skip = 0; skip < 30; skip++) {
        const host = new SimHost();
        await createImage(graphOn(host), {
          filename: PATH,
          format: 'vdi',
          size: 8 * 4096,
          options: { 'block-size': 4096 },
        });
        const disk = await graphOn(host).open(PATH, { format: 'vdi', writable: true });
        host.faults.inject({ operation, code: 'EIO', skip, times: 1 });
        const recorded = recordDisk(host, disk);
        const failed: number[] = [];
        for (let block = 0; block < 6; block++) {
          const bytes = operationData(block + 1, 4096);
          await recorded.write(block * 4096, bytes).catch(() => failed.push(block));
          if (block % 2 === 1) await recorded.flush().catch(() => failed.push(block));
        }
        host.faults.clear();
        for (const block of [0, 1, 2, 3, 4, 5]) await recorded.write(block * 4096, operationData(block + 1, 4096));
        await recorded.close();
        await checkSurvivor(host, { cut: 0, notes: [] }, expectedBlocks());
      }
    }
  });

  test('a full disk fails the write that finds it full, and nothing else', async () => {
    for (let pages = 1; pages < 14; pages++) {
      const host = new SimHost();
      await createImage(graphOn(host), {
        filename: PATH,
        format: 'vdi',
        size: 8 * 4096,
        options: { 'block-size': 4096 },
      });
      const { allocated } = await host.files.stat(PATH);
      host.capacity = (allocated ?? 0) + pages * 4096;
      const disk = await graphOn(host).open(PATH, { format: 'vdi', writable: true });
      const written: number[] = [];
      for (let block = 0; block < 6; block++) {
        try {
          await disk.write(block * 4096, operationData(block + 1, 4096));
          written.push(block);
        } catch (error) {
          expect(error).toMatchObject({ code: 'ENOSPC' });
        }
      }
      await disk.close().catch((error: unknown) => expect(error).toMatchObject({ code: 'ENOSPC' }));
      host.capacity = Number.POSITIVE_INFINITY;
      const again = await graphOn(host).open(PATH, { format: 'vdi' });
      const report = await again.check({ repair: 'none', finding: () => {} });
      expect(report.corruptions).toBe(0);
      await again.close();
    }
  });

  function expectedBlocks(): Uint8Array {
    const bytes = new Uint8Array(8 * 4096);
    for (let block = 0; block < 6; block++) bytes.set(operationData(block + 1, 4096), block * 4096);
    return bytes;
  }
});
