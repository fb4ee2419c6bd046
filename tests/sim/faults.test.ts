/** Errors of the host at random moments: a request fails or succeeds, what it does not concern stays, and nothing is corrupt. */
import { describe, expect, test } from 'vitest';
import type { Disk } from '../../src/core/disk.ts';
import { BlockError, type ErrorCode } from '../../src/core/errors.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { type DiskOperation, operationData, randomOperations } from '../../src/testing/disk-operations.ts';
import { ModelDisk, SeededRandom, SimHost, type SimOperation } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { graphOn } from '../support/drivers.ts';
import { readQcow2 } from '../support/qcow2-bytes.ts';
import { type DiskKind, openKind, PATH, QCOW2_KINDS, RAW_KINDS, VDI_KINDS } from '../support/sim-disks.ts';
import { readVdi } from '../support/vdi-bytes.ts';

const STRUCK: readonly SimOperation[] = [
  'write',
  'write',
  'write',
  'flush',
  'truncate',
  'punchHole',
  'zeroRange',
  'read',
];
const CODES: readonly ErrorCode[] = ['EIO', 'ENOSPC', 'EDQUOT'];

/** The value the operation gives each byte of its range; undefined: none. */
function intended(operation: DiskOperation): { offset: number; data: Uint8Array } | undefined {
  if (operation.kind === 'write') {
    return { offset: operation.offset, data: operationData(operation.seed ?? 0, operation.length) };
  }
  if (operation.kind === 'zero' || operation.kind === 'unmap' || operation.kind === 'discard') {
    return { offset: operation.offset, data: new Uint8Array(operation.length) };
  }
  return undefined;
}

async function perform(disk: Disk, operation: DiskOperation): Promise<void> {
  if (operation.kind === 'write') {
    const data = operationData(operation.seed ?? 0, operation.length);
    await disk.write(operation.offset, data, operation.fua ? { fua: true } : {});
  } else if (operation.kind === 'discard') await disk.discard(operation.offset, operation.length);
  else if (operation.kind === 'zero' || operation.kind === 'unmap') {
    await disk.writeZeroes(operation.offset, operation.length, { unmap: operation.kind === 'unmap' });
  } else if (operation.kind === 'resize') await disk.resize(operation.length, { shrink: true });
  else if (operation.kind === 'read') await disk.read(operation.offset, operation.length);
  else if (operation.kind === 'flush') await disk.flush();
}

/** Runs one operation that may fail with the host's error, and nothing else. */
async function attempt(disk: Disk, operation: DiskOperation): Promise<boolean> {
  try {
    await perform(disk, operation);
    return true;
  } catch (error) {
    if (error instanceof BlockError && CODES.includes(error.code)) return false;
    throw error;
  }
}

class FaultRun {
  readonly host: SimHost;
  readonly model: ModelDisk;
  readonly #kind: DiskKind;
  readonly #random: SeededRandom;
  failed = 0;

  constructor(kind: DiskKind, seed: number, length: number) {
    this.#random = new SeededRandom(seed);
    this.host = new SimHost({ seed, record: false, refuseNow: this.#random.pick([0, 0.5]) });
    this.model = new ModelDisk(length);
    this.#kind = kind;
  }

  async run(operations: readonly DiskOperation[]): Promise<void> {
    await this.#kind.make(this.host, this.model.length);
    const graph = graphOn(this.host);
    const open = () => openKind(graph, this.#kind, 0, { writable: true });
    let disk = await open();
    for (const each of operations) {
      const operation = this.#clipped(each);
      if (this.#random.chance(0.4)) this.#arm();
      const done = await attempt(disk, operation);
      this.host.faults.clear();
      if (!done) this.failed++;
      if (!done && operation.kind === 'resize') {
        // Whether it took place is known when the image is opened again; until then a driver may refuse to write.
        await disk.close();
        disk = await open();
      }
      await this.#compare(disk, operation, done);
    }
    await disk.flush();
    await disk.close();
    expect(this.host.openFiles).toEqual([]);
    const again = await open();
    const at = differsAt(await again.read(0, again.length), this.model.bytes);
    if (at >= 0) throw new Error(`byte ${at} is not ${this.model.bytes[at]} when opened again`);
    await again.close();
    if (this.#kind.format === 'vdi') expect(readVdi(this.host.contents(PATH)).problems).toEqual([]);
    if (this.#kind.format === 'qcow2') expect(readQcow2(this.host.contents(PATH)).problems).toEqual([]);
  }

  #arm(): void {
    this.host.faults.inject({
      operation: this.#random.pick(STRUCK),
      code: this.#random.pick(CODES),
      skip: this.#random.below(4),
      times: this.#random.between(1, 2),
    });
  }

  #clipped(operation: DiskOperation): DiskOperation {
    if (!('offset' in operation)) return operation;
    const offset = Math.min(operation.offset, this.model.length);
    return { ...operation, offset, length: Math.min(operation.length, this.model.length - offset) };
  }

  /** The range of a change that failed has, byte by byte, what it had or what it was to get. */
  async #compare(disk: Disk, operation: DiskOperation, done: boolean): Promise<void> {
    if (operation.kind === 'resize') {
      expect(done ? [operation.length] : [operation.length, this.model.length]).toContain(disk.length);
      const before = this.model.read(0, this.model.length);
      this.model.truncate(disk.length);
      const found = await disk.read(0, disk.length);
      // What a failed resize was about to cut off may be zero already.
      const bad = found.findIndex((byte, at) => byte !== this.model.bytes[at] && (done || byte !== 0));
      if (bad >= 0) throw new Error(`byte ${bad} is ${found[bad]}, was ${before[bad]}, resized: ${done}`);
      this.model.write(0, found);
      return;
    }
    const change = intended(operation);
    const found = await disk.read(0, this.model.length);
    if (change !== undefined) {
      const { offset, data } = change;
      const exact = done && operation.kind !== 'discard';
      const bad = data.findIndex((byte, i) => {
        const now = found[offset + i];
        return now !== byte && (exact || now !== this.model.bytes[offset + i]);
      });
      if (bad >= 0)
        throw new Error(`byte ${offset + bad} is ${found[offset + bad]} after ${JSON.stringify(operation)}, ${done}`);
      this.model.write(offset, found.subarray(offset, offset + data.length));
    }
    const at = differsAt(found, this.model.bytes);
    if (at >= 0) throw new Error(`byte ${at}, beside ${JSON.stringify(operation)}, is ${found[at]}`);
  }
}

const sequences = longMode ? 2000 : 60;
const kinds = [...RAW_KINDS, ...VDI_KINDS, ...QCOW2_KINDS].filter(
  (kind) => kind.tree === undefined && kind.blockSize < 1 << 20,
);

describe('errors of the host at random', () => {
  test.each(kinds)(`$name: ${sequences} sequences`, async (kind) => {
    let failed = 0;
    for (let seed = testSeed; seed < testSeed + sequences; seed++) {
      const length = kind.blockSize * 8 + 512;
      const operations = randomOperations(seed, {
        count: 30,
        length,
        blockSize: kind.blockSize,
        resize: { min: 512, max: length * 2, step: 512 },
        weights: { together: 0, status: 0, check: 0, reopen: 0, flush: 15 },
      });
      const run = new FaultRun(kind, seed, length);
      await run.run(operations).catch((error: unknown) => {
        throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
      });
      failed += run.failed;
    }
    expect(failed).toBeGreaterThan(sequences / 2);
  });
});
