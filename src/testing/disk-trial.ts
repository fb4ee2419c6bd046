/** Runs operations on a disk and on the model, and compares after each. */
import type { BlockStatus } from '../core/status.ts';
import { differsAt, notFilledAt } from './compare-bytes.ts';
import { type DiskOperation, operationData, type RangeOperation } from './disk-operations.ts';
import type { DiskUnderTest } from './disk-under-test.ts';
import { ModelDisk } from './model-disk.ts';

/** A disk that a sequence is tried on. */
export interface TrialSubject {
  /** Opens the disk for writing; also again, after closing. It is all zeroes at first. */
  open(): Promise<DiskUnderTest>;
  /** After the last close, e.g. to look for leaks; with what the disk must hold. */
  finish?(model: ModelDisk): void | Promise<void>;
}

/** What a disk did that it must not. */
export class TrialError extends Error {
  override readonly name = 'TrialError';
}

function fail(message: string): never {
  throw new TrialError(message);
}

/** A disk and its model, driven together. */
export class DiskTrial {
  readonly #subject: TrialSubject;
  readonly #model: ModelDisk;
  #disk: DiskUnderTest;

  private constructor(subject: TrialSubject, disk: DiskUnderTest) {
    this.#subject = subject;
    this.#disk = disk;
    this.#model = new ModelDisk(disk.length);
  }

  static async start(subject: TrialSubject): Promise<DiskTrial> {
    return new DiskTrial(subject, await subject.open());
  }

  get model(): ModelDisk {
    return this.#model;
  }

  get disk(): DiskUnderTest {
    return this.#disk;
  }

  /** Throws a {@link TrialError} when the disk is not like the model, or what the disk threw. */
  async run(operation: DiskOperation): Promise<void> {
    switch (operation.kind) {
      case 'flush':
        return await this.#disk.flush();
      case 'reopen':
        await this.#disk.close();
        this.#disk = await this.#subject.open();
        return await this.#compareAll();
      case 'resize':
        await this.#disk.resize(operation.length, { shrink: true });
        this.#model.truncate(operation.length);
        if (this.#disk.length !== operation.length) fail(`the length is ${this.#disk.length}`);
        return await this.#compareAll();
      case 'check':
        return await this.#check();
      case 'status':
        return await this.#status(operation.offset, operation.length);
      case 'together':
        return await this.#together(operation.operations);
      default:
        return await this.#together([operation]);
    }
  }

  /** Compares everything, checks and closes. */
  async finish(): Promise<void> {
    await this.#compareAll();
    await this.#check();
    await this.#disk.close();
    await this.#subject.finish?.(this.#model);
  }

  /** After a failure: closes without caring what comes of it. */
  async abandon(): Promise<void> {
    await this.#disk.close().catch(() => {});
  }

  async #compareAll(): Promise<void> {
    if (this.#disk.length !== this.#model.length) {
      fail(`the length is ${this.#disk.length} instead of ${this.#model.length}`);
    }
    const at = differsAt(await this.#disk.read(0, this.#model.length), this.#model.bytes);
    if (at >= 0) fail(`byte ${at} is not ${this.#model.bytes[at]}`);
  }

  async #check(): Promise<void> {
    try {
      const findings: string[] = [];
      const { corruptions, checkErrors } = await this.#disk.check({
        repair: 'none',
        finding: (line) => void findings.push(line),
      });
      if (corruptions + checkErrors > 0) fail(`the check finds ${corruptions} corruptions: ${findings.join('; ')}`);
    } catch (error) {
      if ((error as { code?: unknown }).code !== 'ENOTSUP') throw error;
    }
  }

  /** Runs may be missed zeroes, never claimed ones; both ways of asking agree. */
  async #status(start: number, length: number): Promise<void> {
    const end = Math.min(start + length, this.#model.length);
    for (let at = start; at < end; ) {
      const now = this.#disk.tryStatusNow(at, end - at);
      const run = await this.#disk.status(at, end - at);
      checkRun(run, end - at);
      if (now !== undefined && JSON.stringify(now) !== JSON.stringify(run)) {
        fail(`status at ${at} at once is ${JSON.stringify(now)}, later ${JSON.stringify(run)}`);
      }
      if (run.zero && notFilledAt(this.#model.bytes.subarray(at, at + run.length), 0) >= 0) {
        fail(`status at ${at} claims ${run.length} bytes of zeroes`);
      }
      at += run.length;
    }
  }

  /** Requests at one time: each byte ends as some request to it left it, and what is read was there at some time. */
  async #together(all: readonly RangeOperation[]): Promise<void> {
    const requests = all.map((operation) => clip(operation, this.#model.length)).filter(({ length }) => length > 0);
    const datas = requests.map((request) =>
      request.kind === 'write' ? operationData(request.seed ?? 0, request.length) : undefined,
    );
    const changes = requests.flatMap((request, i) => (request.kind === 'read' ? [] : [{ ...request, data: datas[i] }]));
    const results = await settleAll(requests.map((request, i) => perform(this.#disk, request, datas[i])));
    results.forEach((found, i) => {
      const offset = requests[i]?.offset;
      if (found === undefined || offset === undefined) return;
      const bad = firstWrong(found, offset, changes, this.#model, true);
      if (bad >= 0) fail(`read byte ${offset + bad} as ${found[bad]}`);
    });
    await this.#adopt(changes);
  }

  async #adopt(changes: readonly Change[]): Promise<void> {
    const adopted: { offset: number; found: Uint8Array }[] = [];
    for (const { kind, offset, length } of changes) {
      const found = await this.#disk.read(offset, length);
      const bad = firstWrong(found, offset, changes, this.#model, false);
      if (bad >= 0) fail(`byte ${offset + bad} is ${found[bad]} after ${kind}`);
      adopted.push({ offset, found });
    }
    for (const { offset, found } of adopted) this.#model.write(offset, found);
  }
}

/** A request that changes what it covers, with what it writes; without: zeroes. */
type Change = RangeOperation & { readonly data: Uint8Array | undefined };

/**
 * The first byte of what was found at `offset` that no change put there; -1: none. Where only discards were, what was
 * there before may have stayed, and while the changes are under way (`during`) anywhere.
 */
function firstWrong(
  found: Uint8Array,
  offset: number,
  changes: readonly Change[],
  before: ModelDisk,
  during: boolean,
): number {
  const end = offset + found.length;
  const edges = changes.flatMap((change) => [change.offset, change.offset + change.length]);
  const inside = new Set([offset, end, ...edges.filter((edge) => edge > offset && edge < end)]);
  let from = offset;
  // Between two edges each byte has the same changes.
  for (const to of [...inside].sort((a, b) => a - b).slice(1)) {
    const here = changes.filter((change) => change.offset <= from && to <= change.offset + change.length);
    const sources = here.map(({ data, offset: start }) => data?.subarray(from - start, to - start));
    if (during || here.every(({ kind }) => kind === 'discard')) sources.push(before.bytes.subarray(from, to));
    const bad = firstOfNone(found.subarray(from - offset, to - offset), sources);
    if (bad >= 0) return from - offset + bad;
    from = to;
  }
  return -1;
}

/** The first byte that is in none of the sources at its place; -1: none. A source that is absent is zeroes. */
function firstOfNone(found: Uint8Array, sources: readonly (Uint8Array | undefined)[]): number {
  if (sources.some((source) => (source === undefined ? notFilledAt(found, 0) : differsAt(found, source)) < 0))
    return -1;
  return found.findIndex((byte, i) => sources.every((source) => (source === undefined ? 0 : source[i]) !== byte));
}

function clip(operation: RangeOperation, limit: number): RangeOperation {
  const offset = Math.min(operation.offset, limit);
  return { ...operation, offset, length: Math.min(operation.length, limit - offset) };
}

/** Waits for all before it reports the first failure, so that nothing is left under way. */
async function settleAll<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  const results = await Promise.allSettled(promises);
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}

async function perform(
  disk: DiskUnderTest,
  operation: RangeOperation,
  data: Uint8Array | undefined,
): Promise<Uint8Array | undefined> {
  const { kind, offset, length, now } = operation;
  if (kind === 'read') {
    const target = new Uint8Array(length).fill(0xee);
    if (now && disk.tryReadNow(offset, target)) return target;
    return await disk.read(offset, target);
  }
  if (data !== undefined) {
    if (now && !operation.fua && disk.tryWriteNow(offset, data)) return undefined;
    await disk.write(offset, data, operation.fua ? { fua: true } : {});
  } else if (kind === 'discard') await disk.discard(offset, length);
  else await disk.writeZeroes(offset, length, { unmap: kind === 'unmap' });
  return undefined;
}

export function checkRun(run: BlockStatus, limit: number): void {
  const text = JSON.stringify(run);
  if (!Number.isSafeInteger(run.length) || run.length <= 0 || run.length > limit) {
    fail(`a status run of at most ${limit} bytes is ${text}`);
  }
  if (run.data && !run.allocated) fail(`status has data that is not allocated: ${text}`);
  if (!run.data && !run.zero) fail(`status is neither data nor zero: ${text}`);
}
