/** A disk in memory that fails on purpose: by rules, by a function, and by a seed. */
import type { Disk } from '../core/disk.ts';
import { Graph } from '../core/graph.ts';
import { DRIVERS } from '../drivers.ts';
import type { Scenario } from '../filters/blkdebug/actions.ts';
import { type Blkdebug, blkdebugOf } from '../filters/blkdebug/control.ts';
import type { RuleOptions } from '../filters/blkdebug/rules.ts';
import { SimHost } from './sim-host.ts';

/** Options of {@link faultyDisk}. */
export interface FaultyDiskOptions {
  /** Bytes; 512 or more at a time. */
  readonly size: number;
  /** For all that rules leave to chance. Default 1. */
  readonly seed?: number;
  /** In force from the start. */
  readonly rules?: readonly RuleOptions[];
  /** Decides about each request, after the rules. */
  readonly scenario?: Scenario;
  /** What the disk holds at first, from its beginning on. Default: zeroes. */
  readonly content?: Uint8Array;
}

/** A disk in memory that fails by rules. */
export interface FaultyDisk {
  /** To be closed by who asked for it. */
  readonly disk: Disk;
  /** Its rules: to be listed, added and removed while it is open. */
  readonly control: Blkdebug;
  /** Its time is simulated: delays take no time. `host.events` has each fault that struck. */
  readonly host: SimHost;
}

/** A writable disk over memory with blkdebug between. Throws BlockError EINVAL for a wrong rule. */
export async function faultyDisk(options: FaultyDiskOptions): Promise<FaultyDisk> {
  const { size, seed = 1, rules = [], scenario, content } = options;
  const host = new SimHost({ record: false, seed });
  const graph = new Graph({ host, drivers: DRIVERS });
  const disk = await graph.open({ driver: 'blkdebug', seed, image: { driver: 'memory', size } }, { writable: true });
  try {
    // Before there are rules.
    if (content !== undefined) await disk.write(0, content);
    const control = blkdebugOf(disk);
    for (const rule of rules) control.add(rule);
    if (scenario !== undefined) control.setScenario(scenario);
    return { disk, control, host };
  } catch (error) {
    await disk.close();
    throw error;
  }
}
