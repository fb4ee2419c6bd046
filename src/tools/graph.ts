/** The graph that a command works on. */
import { Graph } from '../core/graph.ts';
import type { Host } from '../core/host.ts';
import { DEFAULT_OPEN_POLICY, type OpenPolicy } from '../core/policy.ts';
import { DRIVERS } from '../drivers.ts';
import { type MismatchDetails, mismatchText } from '../filters/blkverify/mismatch.ts';
import { nodeHost } from '../node/host.ts';
import type { Context } from './context.ts';
import { qemuDrivers } from './qemu-drivers.ts';
import { interruption } from './signals.ts';

/** qemu-img opens whatever an image names, and guesses its format (BL-CHAIN-7). */
const QEMU_POLICY: OpenPolicy = { ...DEFAULT_OPEN_POLICY, allow: () => true, probe: true };

/**
 * `survives`: of a server, which goes on when a mirror differs, and tells of it on standard error (BV-17). `busy`: its event
 * loop has other things to do while files are opened and closed, as that of a server has.
 */
export function newGraph(context: Context, { survives = false, busy = false } = {}): Graph {
  const program = programHost(context, survives || busy);
  const host = survives ? tellingMismatches(program) : program;
  context.objects.provideTo(host);
  const { qemu } = context.dialect;
  const drivers = qemu ? qemuDrivers(DRIVERS, { survives }) : DRIVERS;
  return new Graph({ host, drivers, openPolicy: qemu ? QEMU_POLICY : DEFAULT_OPEN_POLICY });
}

function tellingMismatches(host: Host): Host {
  const channel = 'diskwright:mismatch';
  return {
    ...host,
    watched: (name) => name === channel || host.watched(name),
    publish(name, message) {
      if (name === channel) host.warn(mismatchText(message as MismatchDetails));
      if (host.watched(name)) host.publish(name, message);
    },
  };
}

function programHost({ messages, out }: Context, busy: boolean): Host {
  const host = nodeHost({
    warn(message) {
      const [first = '', ...hints] = message.split('\n');
      if (!first.startsWith('warning: ')) messages.raw(`${message}\n`);
      else messages.error(first, hints.length === 0 ? undefined : hints.join('\n'));
    },
    callsAtOnce: !busy,
    // Whoever types a name may read the files in it.
    allowNamedKeys: true,
    interrupted: interruption,
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
