/** The graph that a command works on. */
import { Graph } from '../core/graph.ts';
import type { Host } from '../core/host.ts';
import { DEFAULT_OPEN_POLICY, type OpenPolicy } from '../core/policy.ts';
import { DRIVERS } from '../drivers.ts';
import { nodeHost } from '../node/host.ts';
import type { Context } from './context.ts';
import { qemuDrivers } from './qemu-drivers.ts';

/** qemu-img opens whatever an image names, and guesses its format (BL-CHAIN-7). */
const QEMU_POLICY: OpenPolicy = { ...DEFAULT_OPEN_POLICY, allow: () => true, probe: true };

export function newGraph(context: Context): Graph {
  const host = programHost(context);
  context.objects.provideTo(host);
  const { qemu } = context.dialect;
  const drivers = qemu ? qemuDrivers(DRIVERS) : DRIVERS;
  return new Graph({ host, drivers, openPolicy: qemu ? QEMU_POLICY : DEFAULT_OPEN_POLICY });
}

function programHost({ messages, out }: Context): Host {
  const host = nodeHost({
    warn: (message) => messages.raw(`${message}\n`),
    // Whoever types a name may read the files in it.
    allowNamedKeys: true,
    ...(process.env.DISKWRIGHT_DEBUG === '1' ? { notice: (message: string) => messages.raw(`${message}\n`) } : {}),
  });
  return {
    ...host,
    exit(message) {
      messages.raw(`${message}\n`);
      // What was printed before is not lost.
      out.flush();
      process.exit(1);
    },
  };
}
