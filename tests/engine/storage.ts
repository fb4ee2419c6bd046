/** A protocol whose storage is an array, which writes down what it is asked and can be held up, limited and made to fail. */
import type { DriverNode, DriverSpec, Extent, Limits, PendingChange, WriteKind } from '../../src/core/driver.ts';
import { defineFormat, defineProtocol } from '../../src/core/driver.ts';
import { BlockError, type ErrorCode, errorText } from '../../src/core/errors.ts';
import { Graph, type GraphOptions } from '../../src/core/graph.ts';
import { option } from '../../src/core/options.ts';
import type { Permissions } from '../../src/core/permissions.ts';
import { SimHost } from '../../src/testing/index.ts';

export interface Call {
  readonly kind: 'read' | 'write' | 'zero' | 'discard' | 'flush' | 'truncate' | 'close' | 'readNow' | 'writeNow';
  readonly offset?: number;
  readonly length?: number;
  readonly unmap?: boolean;
  readonly fua?: boolean;
}

type Capability = 'write' | 'writeZeroes' | 'discard' | 'flush' | 'truncate' | 'tryReadNow' | 'tryWriteNow' | 'status';

export class Storage {
  bytes: Uint8Array;
  readonly calls: Call[] = [];
  limits: Partial<Limits> = {};
  growable = true;
  /** Requests that it takes the flag for. */
  fua: readonly WriteKind[] = [];
  /** Methods the driver lacks. */
  without: Capability[] = ['tryReadNow', 'tryWriteNow', 'status'];
  extents: ((offset: number, length: number) => Extent) | undefined;
  /** Called at the start of every asynchronous method; may wait or throw. */
  before: (call: Call) => Promise<void> | void = () => {};
  permissions: Permissions[] = [];
  refusePermissions: ((next: Permissions) => void) | undefined;
  readOnly = false;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
  }

  /** What was asked, as short lines: `write 512+1024`. */
  get story(): string[] {
    return this.calls.map(({ kind, offset, length, unmap, fua }) => {
      const range = offset === undefined ? '' : ` ${offset}${length === undefined ? '' : `+${length}`}`;
      return `${kind}${range}${unmap ? ' unmap' : ''}${fua ? ' fua' : ''}`;
    });
  }

  forget(): void {
    this.calls.length = 0;
  }

  node(): DriverNode {
    const note = async (call: Call) => {
      this.calls.push(call);
      await this.before(call);
    };
    const all: Required<Pick<DriverNode, 'length' | 'read' | Capability>> = {
      length: () => this.bytes.length,
      read: async (offset, target) => {
        await note({ kind: 'read', offset, length: target.length });
        target.set(this.bytes.subarray(offset, offset + target.length));
      },
      tryReadNow: (offset, target) => {
        this.calls.push({ kind: 'readNow', offset, length: target.length });
        target.set(this.bytes.subarray(offset, offset + target.length));
        return true;
      },
      write: async (offset, source, { fua = false }) => {
        const data = source.slice();
        await note({ kind: 'write', offset, length: data.length, fua });
        this.put(offset, data);
      },
      tryWriteNow: (offset, source) => {
        this.calls.push({ kind: 'writeNow', offset, length: source.length });
        this.put(offset, source);
        return true;
      },
      writeZeroes: async (offset, length, { unmap = false, fua = false }) => {
        await note({ kind: 'zero', offset, length, unmap, fua });
        this.put(offset, new Uint8Array(length));
      },
      discard: async (offset, length) => {
        await note({ kind: 'discard', offset, length });
        this.bytes.fill(0, offset, offset + length);
      },
      flush: async () => await note({ kind: 'flush' }),
      truncate: async (length) => {
        await note({ kind: 'truncate', offset: length });
        const bytes = new Uint8Array(length);
        bytes.set(this.bytes.subarray(0, length));
        this.bytes = bytes;
      },
      status: async (offset, length) => this.extents?.(offset, length) ?? { kind: 'data', length },
    };
    for (const name of this.without) delete (all as Partial<typeof all>)[name];
    return {
      ...all,
      ...(this.readOnly ? { readOnly: true } : {}),
      limits: () => this.limits,
      takesFua: (kind) => this.fua.includes(kind),
      preparePermissions: (next): PendingChange => {
        this.refusePermissions?.(next);
        return { commit: () => void this.permissions.push(next), abort() {} };
      },
      close: async () => await note({ kind: 'close' }),
    };
  }

  put(offset: number, data: Uint8Array): void {
    if (offset + data.length > this.bytes.length) {
      const bytes = new Uint8Array(offset + data.length);
      bytes.set(this.bytes);
      this.bytes = bytes;
    }
    this.bytes.set(data, offset);
  }
}

/** `driver=NAME` opens `storage`. */
export function storageProtocol(storage: Storage, name = 'store'): DriverSpec {
  return defineProtocol({
    name,
    summary: 'an array',
    options: { filename: option.text<string | undefined>({ help: 'any name', fallback: undefined }) },
    strongOptions: ['filename'],
    exactFilename: ({ filename }) => (filename === undefined ? undefined : String(filename)),
    growable: storage.growable,
    open: async () => storage.node(),
  });
}

/** A format that passes everything on to its file and has no more to it. */
export const plainFormat = defineFormat({
  name: 'plain',
  summary: 'passes everything on',
  options: {},
  async open({ file }) {
    return {
      length: () => file.length(),
      read: (offset, target) => file.read(offset, target),
      write: (offset, source, flags) => file.write(offset, source, flags),
      writeZeroes: (offset, length, flags) => file.writeZeroes(offset, length, flags),
      discard: (offset, length) => file.discard(offset, length),
      truncate: (length, options) => file.truncate(length, options),
    };
  },
});

export function graphOf(
  drivers: readonly DriverSpec[],
  options: Partial<GraphOptions> & { readonly host?: SimHost } = {},
): Graph {
  return new Graph({ host: new SimHost(), drivers, ...options });
}

export function failing(code: ErrorCode): () => never {
  return () => {
    throw new BlockError(code, errorText(code));
  };
}

/** A gate that calls wait at until it is opened. */
export function gate(): { wait: () => Promise<void>; open: () => void; readonly waiting: number } {
  const waiting: (() => void)[] = [];
  let opened = false;
  return {
    wait: () => (opened ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve))),
    open() {
      opened = true;
      for (const resolve of waiting) resolve();
    },
    get waiting() {
      return waiting.length;
    },
  };
}

/** Code and message of what `promise` fails with. */
export async function failureOf(promise: Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof BlockError) return { code: error.code, message: error.message };
    throw error;
  }
  throw new Error('it did not fail');
}
