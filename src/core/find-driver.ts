/** The driver for a name: of a driver, or of a file (BL-DRV-2, BL-DRV-7, BL-DRV-8). */
import type { DriverSpec, FilterSpec, ProtocolSpec } from './driver.ts';
import { BlockError } from './errors.ts';
import { protocolPrefix } from './filename.ts';
import type { Graph } from './graph.ts';
import type { HostContext } from './host.ts';
import type { NodeSettings } from './node.ts';

/** What a file name can lead to: a protocol, or a filter with names of its own. */
export type NamedDriver = ProtocolSpec<never, never> | FilterSpec<never>;

export function requireDriver(graph: Graph, name: string): DriverSpec {
  const driver = graph.driver(name);
  if (driver === undefined) throw new BlockError('ENOENT', `Unknown driver '${name}'`);
  return driver;
}

/** Devices first, then prefixes, else `file`. */
export async function protocolFor(
  graph: Graph,
  filename: string,
  withPrefix: boolean,
  context?: HostContext,
): Promise<NamedDriver> {
  let best: NamedDriver | undefined;
  let bestScore = 0;
  for (const driver of graph.drivers) {
    if (driver.kind !== 'protocol' || driver.probeDevice === undefined) continue;
    const score = await driver.probeDevice(filename, graph.host, context);
    if (score > bestScore) {
      best = driver;
      bestScore = score;
    }
  }
  if (best !== undefined) return best;
  const prefix = withPrefix ? protocolPrefix(filename) : undefined;
  const driver = graph.driver(prefix ?? 'file') ?? driverOfPrefix(graph, prefix?.toLowerCase());
  const named = driver?.kind === 'protocol' || (driver?.kind === 'filter' && driver.parseFilename !== undefined);
  if (!named) throw new BlockError('ENOENT', `Unknown protocol '${prefix ?? 'file'}'`);
  return driver;
}

function driverOfPrefix(graph: Graph, prefix: string | undefined): DriverSpec | undefined {
  if (prefix === undefined) return undefined;
  return graph.drivers.find((driver) => driver.kind === 'protocol' && driver.prefixes?.includes(prefix));
}

/**
 * The settings that a whitelist leaves: a node that may only be read is read-only where the options let it degrade. Throws
 * BlockError ENOTSUP (BL-DRV-5).
 */
export function allowedSettings(graph: Graph, driver: string, settings: NodeSettings): NodeSettings {
  const { readOnly, autoReadOnly } = settings;
  if (graph.allows(driver, !readOnly)) return settings;
  const reading = !readOnly && graph.allows(driver, false);
  if (reading && autoReadOnly) return { ...settings, readOnly: true };
  const text = reading ? 'can only be used for read-only devices' : 'is not whitelisted';
  throw new BlockError('ENOTSUP', `Driver '${driver}' ${text}`);
}
