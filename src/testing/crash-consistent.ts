/** One call that says whether what a workload leaves on a disk survives a power cut at any moment. */
import { createImage } from '../core/create.ts';
import type { Disk } from '../core/disk.ts';
import type { DriverSpec } from '../core/driver.ts';
import { Graph } from '../core/graph.ts';
import type { NestedOptions, OptionTree } from '../core/options.ts';
import { DRIVERS } from '../drivers.ts';
import { mark } from '../filters/log/node.ts';
import { type CrashReport, type CrashState, crashLab } from '../jobs/crash-lab/crash-lab.ts';
import { describeFinding } from '../jobs/crash-lab/report.ts';
import { SimHost, type SimHostOptions } from './sim-host.ts';

/** Runs on the recorded disk. `mark` puts a name into the log, behind all that was answered: what was confirmed by then. */
export type RecordedWorkload = (disk: Disk, mark: (name: string) => Promise<void>) => Promise<void>;

/** Throws when what is left is not acceptable. May write: nothing of it stays. */
export type CrashCheck = (disk: Disk, state: CrashState) => unknown;

/** Options of {@link expectCrashConsistent}. */
export interface CrashConsistencyOptions {
  /** Of the disk, bytes; without a format a multiple of 512. */
  readonly size: number;
  /** Of the image that the disk is in. Default `raw`. */
  readonly format?: string;
  /** The format's creation options. */
  readonly createOptions?: OptionTree;
  /** Of the device below the format, which does not grow, bytes. Default: 4 MiB and a quarter more than the disk. */
  readonly deviceSize?: number;
  /** What each byte of the device is behind a new image: devices need not begin as zeroes. Default 0. */
  readonly deviceFill?: number;
  /** Done before the recording begins; durable. */
  readonly prepare?: (disk: Disk) => Promise<void>;
  /** Bytes that the device writes whole or not at all. Default 512. */
  readonly atomic?: number;
  /** States that are tried, at most. Default 1000. */
  readonly states?: number;
  /** For all that is left to chance: which states, and the simulated host's latencies. Default 1. */
  readonly seed?: number;
  /** Of the simulated host, e.g. latencies that let requests overtake each other. */
  readonly host?: SimHostOptions;
  /** Default: all that come with the library. */
  readonly drivers?: readonly DriverSpec[];
  readonly signal?: AbortSignal;
}

/** A state that a power cut can leave, and that the check refused. The message has the seed and what is lost. */
export class CrashConsistencyError extends Error {
  override readonly name = 'CrashConsistencyError';
  readonly report: CrashReport;

  constructor(report: CrashReport) {
    const { failure, seed, atomic } = report;
    const found = failure === undefined ? '' : describeFinding(failure);
    super(`Not crash-consistent (seed ${seed}, atomic ${atomic}, state ${failure?.state}):\n${found}`, {
      cause: failure?.cause,
    });
    this.report = report;
  }
}

const DEVICE = '/disk';
const LOG = '/log';
const RECORDER = 'recorder';
const HEADROOM = 4 << 20;

/**
 * Records the workload on a disk in memory, tries the states that a power cut can leave, and throws
 * {@link CrashConsistencyError} at the first that `check` refuses, RangeError for options out of range, and what the
 * workload throws. Belongs to no test runner.
 */
export async function expectCrashConsistent(
  workload: RecordedWorkload,
  check: CrashCheck,
  options: CrashConsistencyOptions,
): Promise<CrashReport> {
  const { size, format = 'raw', seed = 1, drivers = DRIVERS, atomic, states, signal } = options;
  if (!(Number.isSafeInteger(size) && size > 0 && (format !== 'raw' || size % 512 === 0))) {
    throw new RangeError(`size must be a positive multiple of 512, not ${size}`);
  }
  const host = new SimHost({ seed, ...options.host, record: false });
  const graph = new Graph({ host, drivers });
  await makeDevice(host, graph, options);
  const before = new SimHost({ record: false }, host.snapshot());
  await record(graph, format, workload);
  const beforeGraph = new Graph({ host: before, drivers });
  await using base = await beforeGraph.open({ driver: 'raw', file: { driver: 'host_device', filename: DEVICE } });
  await using log = await graph.open({ driver: 'raw', file: { driver: 'file', filename: LOG } });
  const report = await crashLab({ graph: beforeGraph, log, base, check, format, seed, atomic, states, signal });
  if (report.failure !== undefined) throw new CrashConsistencyError(report);
  return report;
}

/** The disk before the recording begins: a device, which a format may have been put on. */
async function makeDevice(host: SimHost, graph: Graph, options: CrashConsistencyOptions): Promise<void> {
  const { size, format = 'raw', createOptions = {}, deviceFill = 0, prepare } = options;
  if (format === 'raw') host.put(DEVICE, size, { kind: 'block' });
  else {
    await createImage(graph, { filename: '/new', format, size, options: createOptions });
    const image = host.contents('/new');
    const { deviceSize = Math.ceil((size * 1.25) / 512) * 512 + HEADROOM } = options;
    host.put(DEVICE, Math.max(deviceSize, image.length), { kind: 'block' });
    const device = await host.files.open(DEVICE, { write: true });
    await device.write(0, image);
    if (deviceFill !== 0) {
      await device.write(image.length, new Uint8Array(Math.max(0, device.size() - image.length)).fill(deviceFill));
    }
    await device.close();
  }
  host.put(LOG, 0);
  if (prepare === undefined) return;
  const file: NestedOptions = { driver: 'host_device', filename: DEVICE };
  const disk = await graph.open({ driver: format, file }, { writable: true });
  try {
    await prepare(disk);
  } finally {
    await disk.close();
  }
}

async function record(graph: Graph, format: string, workload: RecordedWorkload): Promise<void> {
  const file: NestedOptions = {
    driver: 'log',
    'node-name': RECORDER,
    file: { driver: 'host_device', filename: DEVICE },
    log: { driver: 'file', filename: LOG },
  };
  const disk = await graph.open({ driver: format, file }, { writable: true });
  try {
    await workload(disk, (name) => mark(graph.lookUp(RECORDER), name));
  } finally {
    await disk.close();
  }
}
