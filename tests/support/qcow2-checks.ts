/** Checks of qcow2 images on a simulated host, and images that are damaged for them. */
import type { CheckOptions, CheckReport } from '../../src/core/driver.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { type CheckDiskOptions, type CheckResult, checkDisk } from '../../src/jobs/check.ts';
import type { SimHost } from '../../src/testing/index.ts';
import { firstL2, makeImage, openDisk, patchWords, some, useDisk, viewImage, wordsAt } from './qcow2-image.ts';

export const CLUSTER = 4096;
export const COPIED = 1n << 63n;

export interface Told {
  readonly lines: string[];
  readonly details: string[];
}

/** One run of the driver's own check. */
export async function checkImage(
  host: SimHost,
  options: Partial<CheckOptions> = {},
): Promise<Told & { readonly report: CheckReport }> {
  const told = newTold();
  const disk = await openDisk(host, {}, { writable: (options.repair ?? 'none') !== 'none', checkOnly: true });
  try {
    return { ...told, report: await disk.check({ repair: 'none', ...telling(told), ...options }) };
  } finally {
    await disk.close();
  }
}

/** All that a check does for users, with the second look after a repair. */
export async function checkWhole(host: SimHost, options: CheckDiskOptions = {}): Promise<Told & CheckResult> {
  const told = newTold();
  const { repair = 'none', plan = false } = options;
  const disk = await openDisk(host, {}, { writable: repair !== 'none' && !plan, checkOnly: true });
  try {
    return { ...told, ...(await checkDisk(disk, { ...telling(told), ...options })) };
  } finally {
    await disk.close();
  }
}

function newTold(): Told {
  return { lines: [], details: [] };
}

function telling({ lines, details }: Told) {
  return {
    finding: (line: string) => void lines.push(line),
    detail: (line: string) => void details.push(line),
  };
}

/** Clusters 0 to 3 are stored side by side, behind header, refcounts, L1 and L2 table: at 5 and up in the file. */
export async function filledImage(options: OptionTree = {}): Promise<SimHost> {
  const host = await makeImage({ cluster_size: CLUSTER, ...options }, { size: 16 * CLUSTER });
  await useDisk(host, (disk) => disk.write(0, some(1, 4 * CLUSTER)));
  // One cluster more, of nothing.
  await patchWords(host, 10 * CLUSTER - 8, 0n);
  return host;
}

export const entryOf = (cluster: number) => COPIED | BigInt(cluster * CLUSTER);
export const entryAt = (host: SimHost, index: number) => firstL2(host) + index * 8;
export const refcountBlock = (host: SimHost) => Number(wordsAt(host, Number(wordsAt(host, 48)[0]))[0]);

/** Changes the count of a cluster, of 16 bits in the first block. */
export async function changeCount(host: SimHost, cluster: number, by: bigint): Promise<void> {
  const at = refcountBlock(host) + Math.floor(cluster / 4) * 8;
  const [word = 0n] = wordsAt(host, at);
  await patchWords(host, at, word + (by << BigInt(48 - 16 * (cluster % 4))));
}

/** What is wrong with an image, by a reader that is none of the driver's: nothing is expected. */
export function faultsOf(host: SimHost): { readonly problems: string[]; readonly leaks: number[] } {
  const { problems, leaks } = viewImage(host);
  return { problems, leaks };
}

export const SOUND = { problems: [], leaks: [] };
