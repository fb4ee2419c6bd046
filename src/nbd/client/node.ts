/** An export as a node: the client's requests in the terms of the driver contract (N-131, N-133). */
import {
  type DriverNode,
  type Extent,
  type Limits,
  NO_REOPEN_STEP,
  type TruncateOptions,
  type ZeroFlags,
} from '../../core/driver.ts';
import { BlockError, codeOf, errorText } from '../../core/errors.ts';
import { AllocationFlag, BASE_ALLOCATION } from '../protocol.ts';
import type { NbdClient } from './client.ts';
import { type StatusRun, StatusWindow } from './status-window.ts';

/** Longest trim that a server is asked for, until it says that it is too long, bytes. */
const TRIM_MAX = 2 ** 30;
/** Lengths are 32 bits wide without extended headers. */
const LENGTH_MAX = 2 ** 32 - 1;

export interface ExportNodeOptions {
  /** Whose extents are the node's status; undefined: the server has none. */
  readonly context: string | undefined;
  readonly readOnly: boolean;
}

/** Capabilities are what the server offers. */
export function exportNode(client: NbdClient, { context, readOnly }: ExportNodeOptions): DriverNode {
  const { facts } = client;
  const window = new StatusWindow();
  /** Whatever happens to it, what is known of the range may be out of date before and after. */
  const changing = async (offset: number, length: number, work: () => Promise<void>) => {
    window.touch(offset, length);
    try {
      await work();
    } finally {
      window.touch(offset, length);
    }
  };
  const zeroes = (offset: number, length: number, { unmap, noFallback, fua }: ZeroFlags) => {
    const fast = noFallback === true;
    if (fast && !facts.canFastZero) throw new BlockError('ENOTSUP', errorText('ENOTSUP'));
    return changing(offset, length, () => client.writeZeroes(offset, length, { keep: unmap !== true, fast, fua }));
  };
  const trimmer = new Trimmer(client);
  return {
    readOnly,
    length: () => facts.size,
    read: (offset, target) => client.read(offset, target),
    write: (offset, source, { fua }) => changing(offset, source.length, () => client.write(offset, source, { fua })),
    takesFua: () => facts.canFua,
    ...(facts.canWriteZeroes && {
      writeZeroes: async (offset: number, length: number, flags: ZeroFlags) => zeroes(offset, length, flags),
    }),
    ...(facts.canTrim && {
      discard: (offset: number, length: number) => changing(offset, length, () => trimmer.trim(offset, length)),
    }),
    flush: () => client.flush(),
    ...statusOf(client, window, context),
    limits: () => limitsOf(client),
    truncate: async (length, options) => refuseResize(facts.size, length, options),
    async prepareReopen({ writable }) {
      if (writable && facts.readOnly) throw new BlockError('EACCES', 'An export that is read-only cannot be written');
      return NO_REOPEN_STEP;
    },
    letGo: () => client.giveUp(),
    close: () => client.close(),
  };
}

function limitsOf({ facts: { minimum, maximum, preferred } }: NbdClient): Partial<Limits> {
  const discardMax = TRIM_MAX;
  return { requestAlign: minimum, transferMax: maximum, zeroMax: maximum, discardMax, preferred };
}

/** An export has the size it has; what need not be exact may be longer than asked. */
function refuseResize(size: number, length: number, { exact }: TruncateOptions): void {
  if (exact === true && length !== size) throw new BlockError('ENOTSUP', 'Cannot resize NBD nodes');
  if (length > size) throw new BlockError('ENOTSUP', 'Cannot grow NBD nodes');
}

/** Trims may be long, unless a server turns out not to take them (N-131). */
class Trimmer {
  readonly #client: NbdClient;
  #longest = Number.POSITIVE_INFINITY;

  constructor(client: NbdClient) {
    this.#client = client;
  }

  async trim(offset: number, length: number): Promise<void> {
    const { maximum } = this.#client.facts;
    if (length <= this.#longest) {
      try {
        await this.#client.trim(offset, length);
        return;
      } catch (error) {
        const code = codeOf(error);
        if (length <= maximum || (code !== 'EINVAL' && code !== 'EOVERFLOW')) throw error;
        this.#longest = maximum;
      }
    }
    for (let done = 0; done < length; done += maximum) {
      await this.#client.trim(offset + done, Math.min(maximum, length - done));
    }
  }
}

type StatusMethods = Pick<DriverNode, 'status' | 'tryStatusNow' | 'holdStatus'>;

function statusOf(client: NbdClient, window: StatusWindow, context: string | undefined): StatusMethods {
  if (context === undefined) {
    const allData = (offset: number, length: number): Extent => ({ kind: 'data', length, at: { offset } });
    return { status: async (offset, length) => allData(offset, length), tryStatusNow: allData };
  }
  const { size, minimum } = client.facts;
  const base = context === BASE_ALLOCATION;
  const longest = client.agreement.extended ? Number.MAX_SAFE_INTEGER : LENGTH_MAX;
  const known = (offset: number, length: number) => {
    const run = window.find(offset);
    return run && extentOf(run, offset, length, base);
  };
  return {
    tryStatusNow: known,
    holdStatus: () => window.hold(),
    async status(offset, length) {
      const found = known(offset, length);
      if (found !== undefined) return found;
      const start = offset - (offset % minimum);
      const wide = window.open;
      // Many extents for one question, or one that is no longer than asked.
      const end = wide ? size : Math.min(size, Math.ceil((offset + length) / minimum) * minimum);
      const asked = Math.min(end - start, longest - (longest % minimum));
      const { age } = window;
      const extents = (await client.blockStatus(start, asked, { one: !wide })).get(context) ?? [];
      window.keep(start, extents, age);
      return extentOf(firstRun(extents, offset - start), offset, length, base);
    },
  };
}

/** The run at `skip` bytes from the start of the extents. */
function firstRun(extents: readonly number[], skip: number): StatusRun {
  let start = 0;
  for (let at = 0; at < extents.length; at += 2) {
    const length = extents[at] ?? 0;
    if (start + length > skip) return { length: start + length - skip, flags: extents[at + 1] ?? 0 };
    start += length;
  }
  throw new BlockError('EIO', 'The server told nothing of what it was asked for');
}

/** Only of `base:allocation` the flags say what is read; another context shows where something is set. */
function extentOf(run: StatusRun, offset: number, longest: number, base: boolean): Extent {
  const length = Math.min(run.length, longest);
  const { flags } = run;
  if (flags === 0) return { kind: 'data', length, at: { offset } };
  if (!base || (flags & AllocationFlag.zero) === 0) {
    const known = !base || (flags & AllocationFlag.hole) !== 0;
    return known ? { kind: 'unknown', length } : { kind: 'data', length, at: { offset } };
  }
  return { kind: 'zero', length, at: { offset }, stored: (flags & AllocationFlag.hole) === 0 };
}
