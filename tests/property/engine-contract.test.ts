/** The contract suite over the engine alone: one array below, with limits and gaps of all kinds. */
import { describe, test } from 'vitest';
import type { Limits } from '../../src/core/driver.ts';
import { raw } from '../../src/formats/raw.ts';
import { type ContractSubject, driverContract } from '../../src/testing/index.ts';
import { graphOf, plainFormat, Storage, storageProtocol } from '../engine/storage.ts';

interface Variant {
  readonly limits?: Partial<Limits>;
  readonly without?: Storage['without'];
  readonly above?: 'raw' | 'plain';
}

const VARIANTS: Readonly<Record<string, Variant>> = {
  bare: {},
  'without the fast path': { without: ['tryReadNow', 'tryWriteNow'] },
  'with reads and writes only': { without: ['writeZeroes', 'discard', 'flush', 'truncate', 'status'] },
  'in sectors': { limits: { requestAlign: 512 } },
  'in pages, short transfers': { limits: { requestAlign: 4096, transferMax: 8192, zeroMax: 12288, discardMax: 16384 } },
  'zeroing and discarding in blocks': { limits: { zeroAlign: 4096, discardAlign: 8192 } },
  'in sectors, zeroing in blocks': { limits: { requestAlign: 512, zeroAlign: 16384, discardAlign: 4096 } },
  'below raw': { above: 'raw' },
  'below a format without a fast path': { above: 'plain', limits: { requestAlign: 512 } },
};

function subject(name: string, { limits = {}, without = [], above }: Variant): ContractSubject {
  return {
    name,
    lengthUnit: Math.max(512, limits.requestAlign ?? 1),
    blockSize: 8192,
    async make(length) {
      const storage = new Storage(length);
      storage.limits = limits;
      storage.without = without;
      const graph = graphOf([storageProtocol(storage), raw, plainFormat]);
      const file = { driver: 'store' };
      return {
        open: (options) => graph.open(above === undefined ? file : { driver: above, file }, options),
        openFiles: () => graph.nodes().map((node) => node.name),
      };
    },
  };
}

describe('driver contract of the engine', () => {
  for (const [name, variant] of Object.entries(VARIANTS)) {
    for (const { name: title, run } of driverContract(subject(name, variant))) test(title, run);
  }
});
