/** Uses an image that may be anything in all ways there are, and says what must never happen. */
import type { Disk, OpenOptions } from '../../src/core/disk.ts';
import { BlockError } from '../../src/core/errors.ts';
import type { Graph } from '../../src/core/graph.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { SimHost } from '../../src/testing/index.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';
import { FREE } from '../support/vdi-bytes.ts';
import { vdiImage } from '../support/vdi-image.ts';
import { countAllocations } from './allocations.ts';

/** What a damaged image may make a request fail with. */
const CODES: readonly string[] = ['EINVAL', 'ENOTSUP', 'EIO', 'EFBIG', 'ENOENT', 'ELOOP'];
/** A writer may be told more. */
const WRITE_CODES: readonly string[] = [...CODES, 'EACCES', 'EPERM', 'EROFS', 'ENOSPC'];

/** An image that may be named as the one below, and one that is below itself if it is. */
const BESIDE: Readonly<Record<string, Uint8Array>> = {
  '/parent.vdi': vdiImage({ map: [0, 1, FREE, 2, 3, 4] }, { uuid: 1 }),
  '/loop.vdi': vdiImage({ map: [0, FREE] }, { uuid: 3, link: 3 }),
};

/** Operations on the host that no small image is worth. */
const OPERATION_BUDGET = 20_000;
/** Bytes allocated beside what the length of the file justifies: buffers of requests and of comparisons. */
const FIXED_ALLOCATION = 4 << 20;

async function tolerate(codes: readonly string[], work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
    return 'done';
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    if (!codes.includes(error.code)) throw new Error(`code ${error.code}: ${error.message}`, { cause: error });
    if (error.message === '' || error.message.includes('undefined') || error.message.includes('NaN')) {
      throw new Error(`a message without sense: ${error.message}`, { cause: error });
    }
    return `${error.code} ${error.message}`;
  }
}

/** Reads here and there, walks the status, asks for information, checks. */
async function lookAround(disk: Disk): Promise<void> {
  const { length } = disk;
  if (!Number.isSafeInteger(length) || length < 0) throw new Error(`the length is ${length}`);
  disk.info();
  disk.allocatedSize();
  const size = Math.min(length, 5000);
  for (const offset of [0, Math.floor(length / 2), length - size]) {
    const start = Math.min(Math.max(0, offset), length - size);
    await tolerate(CODES, () => disk.read(start, size));
    disk.tryReadNow(start, new Uint8Array(size));
  }
  let at = 0;
  for (let run = 0; run < 200 && at < length; run++) {
    const status = await disk.status(at, length - at).catch((error: unknown) => {
      if (error instanceof BlockError && CODES.includes(error.code)) return undefined;
      throw error;
    });
    if (status === undefined) break;
    if (status.length <= 0 || at + status.length > length) throw new Error(`a run of ${status.length} bytes at ${at}`);
    at += status.length;
  }
  await tolerate(CODES, () => disk.check({ repair: 'none', finding: () => {} }));
}

async function withDisk(graph: Graph, options: OpenOptions, use: (disk: Disk) => Promise<void>): Promise<string> {
  const codes = options.writable ? WRITE_CODES : CODES;
  return await tolerate(codes, async () => {
    const disk = await graph.open(PATH, options);
    try {
      await use(disk);
    } finally {
      await tolerate(codes, () => disk.close());
    }
  });
}

/** All ways of only looking. Returns what opening said. */
async function readOnly(host: SimHost): Promise<string> {
  const graph = graphOn(host);
  const outcome = await withDisk(graph, { format: 'vdi' }, lookAround);
  await withDisk(graph, {}, lookAround);
  await withDisk(graph, { format: 'vdi', checkOnly: true }, lookAround);
  await withDisk(graph, { format: 'vdi', salvage: true }, lookAround);
  await withDisk(graph, { format: 'vdi', noIO: true }, async (disk) => void disk.info());
  return outcome;
}

async function change(disk: Disk): Promise<void> {
  const { length } = disk;
  const data = new Uint8Array(Math.min(length, 700)).fill(0x77);
  await tolerate(WRITE_CODES, () => disk.write(0, data));
  await tolerate(WRITE_CODES, () => disk.write(length - data.length, data));
  await tolerate(WRITE_CODES, () => disk.discard(0, Math.min(length, 1 << 20)));
  await tolerate(WRITE_CODES, () => disk.writeZeroes(0, Math.min(length, 9000), { unmap: true }));
  await tolerate(WRITE_CODES, () => disk.flush());
}

async function writing(host: SimHost): Promise<void> {
  const graph = graphOn(host);
  await withDisk(graph, { format: 'vdi', writable: true }, change);
  await withDisk(graph, { format: 'vdi', writable: true, checkOnly: true }, async (disk) => {
    await tolerate(WRITE_CODES, () => disk.check({ repair: 'leaks', finding: () => {} }));
    await tolerate(WRITE_CODES, () => disk.check({ repair: 'all', finding: () => {} }));
    await tolerate(WRITE_CODES, () => disk.compact());
  });
  await withDisk(graph, { format: 'vdi', writable: true }, change);
}

function checkHost(host: SimHost, graphs: string): void {
  if (host.openFiles.length > 0) throw new Error(`${graphs}: still open: ${host.openFiles.join(', ')}`);
}

function putAll(host: SimHost, bytes: Uint8Array): void {
  host.put(PATH, bytes);
  for (const [path, beside] of Object.entries(BESIDE)) host.put(path, beside);
}

function checkBeside(host: SimHost): void {
  for (const [path, bytes] of Object.entries(BESIDE)) {
    if (differsAt(host.contents(path), bytes) >= 0) throw new Error(`${path} was changed`);
  }
}

/** Throws when the image makes anything happen that must not. Returns what opening it said. */
export async function torment(bytes: Uint8Array): Promise<string> {
  const host = new SimHost({ record: false, operationBudget: OPERATION_BUDGET });
  putAll(host, bytes);
  let outcome = '';
  const reading = await countAllocations(async () => {
    outcome = await readOnly(host);
  });
  const limit = FIXED_ALLOCATION + bytes.length * 4;
  if (reading.largest > limit)
    throw new Error(`${reading.largest} bytes allocated at once for ${bytes.length} of file`);
  const { write, truncate, punchHole, zeroRange, allocate } = host.counters.operations;
  if ([write, truncate, punchHole, zeroRange, allocate].some((count) => count !== undefined)) {
    throw new Error('looking at it wrote to it');
  }
  if (differsAt(host.contents(PATH), bytes) >= 0) throw new Error('looking at it changed it');
  checkHost(host, 'reading');
  const target = new SimHost({ record: false, operationBudget: OPERATION_BUDGET, capacity: 64 << 20 });
  putAll(target, bytes);
  const changing = await countAllocations(() => writing(target));
  if (changing.largest > limit) throw new Error(`${changing.largest} bytes allocated at once by writing`);
  checkHost(target, 'writing');
  checkBeside(target);
  return outcome;
}
