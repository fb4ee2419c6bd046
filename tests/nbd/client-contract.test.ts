/** The driver contract over NBD: our driver, our server, every way of replying (N-130 to N-133). */
import { describe, test } from 'vitest';
import type { NestedOptions } from '../../src/core/options.ts';
import type { NbdServerOptions } from '../../src/nbd/server/server.ts';
import { type ContractSubject, driverContract } from '../../src/testing/index.ts';
import { Loopback } from '../support/nbd-client.ts';

interface Variant {
  readonly options?: NestedOptions;
  readonly server?: NbdServerOptions;
  readonly above?: (nbd: NestedOptions) => NestedOptions;
  /** What the server has below it. */
  readonly below?: (size: number) => NestedOptions;
  readonly lengthUnit?: number;
}

const MEMORY = (size: number): NestedOptions => ({ driver: 'memory', size });

const VARIANTS: Readonly<Record<string, Variant>> = {
  nbd: {},
  'nbd that waits for a lost server': { options: { 'reconnect-delay': 5, 'open-timeout': 5 } },
  'nbd on one connection only': { server: { maxConnections: 1 } },
  'nbd of blocks of 4096': {
    below: (size) => ({ driver: 'blkdebug', align: 4096, image: MEMORY(size) }),
    lengthUnit: 4096,
  },
  'raw over nbd': { above: (file) => ({ driver: 'raw', file }), lengthUnit: 512 },
  'blkdebug over nbd': { above: (image) => ({ driver: 'blkdebug', image }) },
};

function subject(
  name: string,
  { options = {}, server = {}, above, below = MEMORY, lengthUnit }: Variant,
): ContractSubject {
  return {
    name,
    blockSize: 4096,
    sequences: 5,
    ...(lengthUnit !== undefined && { lengthUnit }),
    async make(length) {
      const loop = await Loopback.start(below(length), server);
      const nbd = { driver: 'nbd', path: '/s', ...options };
      return {
        open: (how) => loop.graph.open(above === undefined ? nbd : above(nbd), how),
        openFiles: () => loop.graph.nodes().map((node) => node.name),
        dispose: () => loop.server.close(),
      };
    },
  };
}

describe('driver contract over NBD', () => {
  for (const [name, variant] of Object.entries(VARIANTS)) {
    for (const { name: title, run } of driverContract(subject(name, variant))) test(title, run);
  }
});
