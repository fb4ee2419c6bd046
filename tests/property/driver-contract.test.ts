/** The contract suite over every driver, on simulated hosts of several moods and on this machine's files. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import type { Host } from '../../src/core/host.ts';
import type { NestedOptions, OptionTree } from '../../src/core/options.ts';
import { nodeHost } from '../../src/node/host.ts';
import { type ContractSubject, driverContract, SimHost, type SimHostOptions } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { DRIVERS, graphOn } from '../support/drivers.ts';
import { type DiskKind, openKind, QCOW2_KINDS, RAW_KINDS, VDI_KINDS } from '../support/sim-disks.ts';

const SIM_HOSTS: Readonly<Record<string, SimHostOptions>> = {
  'a prompt host': {},
  'a slow host that answers nothing at once': { latency: { min: 0, max: 9 }, refuseNow: 1 },
  'a bare host': { missing: ['allocate', 'punchHole', 'zeroRange', 'copyFrom', 'extent', 'lock'], refuseNow: 0.3 },
};

function simSubject(kind: DiskKind, mood: string, options: SimHostOptions): ContractSubject {
  return {
    name: `${kind.name} on ${mood}`,
    lengthUnit: kind.lengthUnit,
    blockSize: Math.min(kind.blockSize, 1 << 20),
    sequences: kind.blockSize >= 1 << 20 ? 1 : longMode ? 8 : 5,
    async make(length) {
      const host = new SimHost({ seed: testSeed, record: false, ...options });
      await kind.make(host, length);
      const graph = graphOn(host);
      return {
        open: (how = {}) => openKind(graph, kind, length, how),
        stored: async (filename, offset, size) => {
          // Past a file's end all is zero.
          const bytes = new Uint8Array(size);
          bytes.set(host.contents(filename).subarray(offset, offset + size));
          return bytes;
        },
        openFiles: () => host.openFiles,
        dispose: async () => expect(graph.nodes()).toEqual([]),
      };
    },
  };
}

/** Protocols that are opened by their options alone. */
function bareSubject(
  name: string,
  tree: (length: number) => NestedOptions,
  traits: Partial<ContractSubject>,
): ContractSubject {
  return {
    name,
    persistent: false,
    ...traits,
    async make(length) {
      const graph = graphOn(new SimHost({ record: false }));
      return {
        open: (how = {}) => graph.open(tree(length), how),
        openFiles: () => graph.nodes().map((node) => node.name),
      };
    },
  };
}

function nodeSubject(
  format: 'raw' | 'vdi',
  options: OptionTree,
  host: Host,
  traits: Partial<ContractSubject>,
): ContractSubject {
  return {
    name: `${format} ${JSON.stringify(options)} on this machine`,
    lengthUnit: 512,
    sequences: 4,
    ...traits,
    async make(length) {
      const folder = mkdtempSync(join(tmpdir(), 'diskwright-contract-'));
      const path = join(folder, 'disk');
      const graph = graphOn(host);
      await createImage(graph, { filename: path, format, size: length, options });
      return {
        open: (how = {}) => graph.open(path, { format, ...how }),
        stored: async (_filename, offset, size) => {
          const bytes = new Uint8Array(size);
          bytes.set(readFileSync(path).subarray(offset, offset + size));
          return bytes;
        },
        openFiles: () => graph.nodes().map((node) => node.name),
        dispose: async () => rmSync(folder, { recursive: true, force: true }),
      };
    },
  };
}

const subjects: ContractSubject[] = [
  ...[...RAW_KINDS, ...VDI_KINDS, ...QCOW2_KINDS].flatMap((kind) =>
    Object.entries(SIM_HOSTS).map(([mood, options]) => simSubject(kind, mood, options)),
  ),
  bareSubject('null-co', (length) => ({ driver: 'null-co', size: length }), { forgetful: true }),
  bareSubject('null-aio', (length) => ({ driver: 'null-aio', size: length }), { forgetful: true }),
  bareSubject('memory', (length) => ({ driver: 'memory', size: length }), {}),
  bareSubject('raw over memory', (length) => ({ driver: 'raw', file: { driver: 'memory', size: length } }), {
    lengthUnit: 512,
  }),
  nodeSubject('raw', {}, nodeHost(), { blockSize: 4096 }),
  nodeSubject('vdi', { 'block-size': 4096 }, nodeHost(), { blockSize: 4096 }),
  nodeSubject('vdi', {}, nodeHost(), { blockSize: 1 << 20, sequences: 1 }),
];

describe('driver contract', () => {
  for (const subject of subjects) for (const { name, run } of driverContract(subject)) test(name, run);

  test('no driver is left out', () => {
    const names = subjects.map(({ name }) => name).join(' ');
    // A block device is not made for a test; its driver shares all but opening with `file`.
    const missing = DRIVERS.filter(({ name }) => !names.includes(name) && name !== 'file' && name !== 'host_device');
    expect(missing.map(({ name }) => name)).toEqual([]);
  });
});
