/** The graph that a command works on. */
import { Graph } from '../core/graph.ts';
import { DRIVERS } from '../drivers.ts';
import { nodeHost } from '../node/host.ts';
import type { Context } from './context.ts';
import { qemuDrivers } from './qemu-drivers.ts';

export function newGraph(context: Context): Graph {
  const host = nodeHost({
    warn: (message) => context.messages.raw(`${message}\n`),
    ...(process.env.DISKWRIGHT_DEBUG === '1'
      ? { notice: (message: string) => context.messages.raw(`${message}\n`) }
      : {}),
  });
  return new Graph({ host, drivers: context.dialect.qemu ? qemuDrivers(DRIVERS) : DRIVERS });
}
