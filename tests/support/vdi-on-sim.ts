/** VDI images on a simulated host, for tests of single rules. */
import { expect } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import type { Disk, OpenOptions } from '../../src/core/disk.ts';
import type { CheckReport, RepairMode } from '../../src/core/driver.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { SimHost, type SimHostOptions } from '../../src/testing/index.ts';
import { graphOn, PATH } from './sim-disks.ts';
import { makeVdi, readVdi, VDI_FIELDS, type VdiField, type VdiPlan, type VdiView } from './vdi-bytes.ts';

export const BLOCK = 4096;

/** A host with an image of 4 KiB blocks, slot n filled with n+1, and fields of its header set afterwards. */
export function hostWith(
  plan: Partial<VdiPlan> & { readonly map: readonly number[] },
  fields: Partial<Record<VdiField, number>> = {},
  host: SimHostOptions = {},
): SimHost {
  const bytes = makeVdi({ diskSize: plan.map.length * BLOCK, blockSize: BLOCK, ...plan });
  const view = new DataView(bytes.buffer);
  for (const [field, value] of Object.entries(fields)) view.setUint32(VDI_FIELDS[field as VdiField], value, true);
  return hostHolding(bytes, host);
}

export function hostHolding(bytes: Uint8Array | number, options: SimHostOptions = {}): SimHost {
  const host = new SimHost(options);
  host.put(PATH, bytes);
  return host;
}

/** A host with a new image of so many 4 KiB blocks. */
export async function newImage(
  blocks: number,
  options: OptionTree = {},
  traits: SimHostOptions = {},
): Promise<SimHost> {
  const host = new SimHost(traits);
  const all = { 'block-size': BLOCK, 'data-align': 512, ...options };
  await createImage(graphOn(host), { filename: PATH, format: 'vdi', size: blocks * BLOCK, options: all });
  return host;
}

export function openOn(host: SimHost, options: OpenOptions = {}): Promise<Disk> {
  return graphOn(host).open(PATH, { format: 'vdi', writable: true, ...options });
}

/** Opens, works, closes. */
export async function withDisk<T>(
  host: SimHost,
  work: (disk: Disk) => Promise<T>,
  options: OpenOptions = {},
): Promise<T> {
  const disk = await openOn(host, options);
  try {
    return await work(disk);
  } finally {
    await disk.close();
  }
}

/** The file as the format's description reads it. */
export function stored(host: SimHost): VdiView {
  return readVdi(host.contents(PATH));
}

export function field(host: SimHost, name: VdiField): number {
  return new DataView(host.contents(PATH).buffer).getUint32(VDI_FIELDS[name], true);
}

/** A block's worth of one value. */
export function block(value: number, length = BLOCK): Uint8Array {
  return new Uint8Array(length).fill(value);
}

/** A block of each value. */
export function blocks(...values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * BLOCK);
  for (const [i, value] of values.entries()) bytes.fill(value, i * BLOCK, (i + 1) * BLOCK);
  return bytes;
}

/** Compares many bytes, quickly. */
export function expectSame(found: Uint8Array, expected: Uint8Array): void {
  expect([found.length, differsAt(found, expected)]).toEqual([expected.length, -1]);
}

/** Bytes one behind the other. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

export async function checked(
  disk: Disk,
  repair: RepairMode = 'none',
): Promise<{ readonly report: CheckReport; readonly findings: string[] }> {
  const findings: string[] = [];
  const report = await disk.check({ repair, finding: (line) => void findings.push(line) });
  return { report, findings };
}
