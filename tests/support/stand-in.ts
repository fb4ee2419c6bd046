/**
 * A simple format with backing images that keeps what it knows in its file: a page of JSON, then clusters of 64 KiB. It
 * creates, reports and grows like qcow2 and can go by that name, to compare what commands print over chains.
 */
import {
  type Child,
  type DriverNode,
  defineFormat,
  type Extent,
  type FormatSpec,
  NO_REOPEN_STEP,
  type OpenContext,
} from '../../src/core/driver.ts';
import { BlockError } from '../../src/core/errors.ts';
import { option } from '../../src/core/options.ts';

const MAGIC = 'STANDIN\n';
const CLUSTER = 65536;
/** Bytes for the JSON text; also the longest backing file name is limited. */
const HEADER = 1 << 20;
const NAME_MAX = 1023;

interface State {
  size: number;
  backing: { filename: string; format: string } | null;
  /** By cluster number: its place in the file, or 0 for zeroes. */
  clusters: [number, number][];
  next: number;
}

export interface StandInCreateOptions {
  readonly cluster_size: number;
  readonly extended_l2: boolean;
  readonly compression_type: string;
  readonly size: number;
  readonly backing_file: string | undefined;
  readonly backing_fmt: string | undefined;
  readonly lazy_refcounts: boolean;
  readonly refcount_bits: number;
}

export function standIn(name: string): FormatSpec<unknown, StandInCreateOptions> {
  return defineFormat<unknown, StandInCreateOptions>({
    name,
    summary: 'A layer over a backing image, for tests',
    options: {},
    probe: (head) => (new TextDecoder().decode(head.subarray(0, MAGIC.length)) === MAGIC ? 100 : 0),
    supportsBacking: true,
    create: {
      options: {
        cluster_size: option.size({ help: 'qcow2 cluster size', fallback: CLUSTER, shown: true }),
        extended_l2: option.boolean({ help: 'Extended L2 tables', fallback: false, shown: true }),
        compression_type: option.text({ help: 'Compression method', fallback: 'zlib', shown: true }),
        size: option.size({ help: 'Virtual disk size', fallback: 0, shown: true }),
        backing_file: option.text<string | undefined>({ help: 'File name of a base image', fallback: undefined }),
        backing_fmt: option.text<string | undefined>({ help: 'Image format of the base image', fallback: undefined }),
        lazy_refcounts: option.boolean({ help: 'Postpone refcount updates', fallback: false, shown: true }),
        refcount_bits: option.number({ help: 'Width of a reference count entry in bits', fallback: 16, shown: true }),
      },
      async run({ file, options: { size, backing_file: filename, backing_fmt: format = '' } }) {
        if (filename === undefined && format !== '') {
          throw new BlockError('EINVAL', 'Backing format cannot be used without backing file');
        }
        const backing = filename === undefined ? null : { filename, format };
        await file.truncate(HEADER);
        await store(file, { size, backing, clusters: [], next: HEADER });
        await file.flush();
      },
    },
    async open(context) {
      const state = await load(context.file, name);
      return standInNode(context, state);
    },
  });
}

async function store(file: Child, state: State): Promise<void> {
  const text = new TextEncoder().encode(`${MAGIC}${JSON.stringify(state)}\n`);
  if (text.length > HEADER) throw new BlockError('EFBIG', 'File too large');
  await file.write(0, text);
}

async function load(file: Child, name: string): Promise<State> {
  const bytes = new Uint8Array(HEADER);
  await file.read(0, bytes);
  const text = new TextDecoder().decode(bytes);
  if (!text.startsWith(MAGIC)) throw new BlockError('EINVAL', `Image is not in ${name} format`);
  return JSON.parse(text.slice(MAGIC.length, text.indexOf('\n', MAGIC.length)));
}

const SPECIFIC = {
  compat: '1.1',
  'compression-type': 'zlib',
  'lazy-refcounts': false,
  'refcount-bits': 16,
  corrupt: false,
  'extended-l2': false,
};

/** The clusters of an image: those that it stores are read and written here, the others come from below. */
class Clusters {
  readonly state: State;
  readonly places: Map<number, number>;
  dirty = false;
  readonly #context: OpenContext<unknown>;
  #last: Promise<unknown> = Promise.resolve();

  constructor(context: OpenContext<unknown>, state: State) {
    this.#context = context;
    this.state = state;
    this.places = new Map(state.clusters);
  }

  async read(number: number, offset: number, target: Uint8Array): Promise<void> {
    const place = this.places.get(number);
    const backing = place === undefined ? this.#context.child('backing') : undefined;
    if (place !== undefined && place !== 0) await this.#context.file.read(place + (offset % CLUSTER), target);
    else if (backing === undefined) target.fill(0);
    else await backing.read(offset, target);
  }

  async write(number: number, offset: number, source: Uint8Array): Promise<void> {
    const { file } = this.#context;
    const place = this.places.get(number);
    if (place !== undefined && place !== 0) return file.write(place + (offset % CLUSTER), source);
    const whole = new Uint8Array(CLUSTER);
    await this.read(number, number * CLUSTER, whole);
    whole.set(source, offset % CLUSTER);
    const fresh = this.state.next;
    this.state.next += CLUSTER;
    await file.write(fresh, whole);
    this.places.set(number, fresh);
    this.dirty = true;
  }

  /** Clusters first: what the header names is there. */
  async flush(): Promise<void> {
    const { file } = this.#context;
    await file.flush();
    if (this.dirty) await store(file, { ...this.state, clusters: [...this.places] });
    this.dirty = false;
    await file.flush();
  }

  /** One after another: a cluster is copied up once. */
  alone(work: () => Promise<void>): Promise<void> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  extent(offset: number, length: number): Extent {
    const place = this.places.get(Math.floor(offset / CLUSTER));
    const first = offset % CLUSTER;
    const expected = (run: number) => (place === undefined || place === 0 ? place : place + run + first);
    let run = CLUSTER - first;
    while (run < length && this.places.get((offset + run) / CLUSTER) === expected(run)) run += CLUSTER;
    const bounded = Math.min(run, length);
    if (place === undefined) return { kind: 'unallocated', length: bounded };
    if (place === 0) return { kind: 'zero', length: bounded };
    return { kind: 'data', length: bounded, at: { child: this.#context.file.name, offset: place + first } };
  }
}

function standInNode(context: OpenContext<unknown>, state: State): DriverNode {
  const clusters = new Clusters(context, state);
  const part = (bytes: Uint8Array, from: number, at: number, length: number) =>
    bytes.subarray(at - from, at - from + length);
  return {
    length: () => state.size,
    backing: () => state.backing ?? undefined,
    async changeBacking(reference) {
      if ((reference?.filename.length ?? 0) > NAME_MAX) throw new BlockError('ENOSPC', 'No space left on device');
      state.backing = reference === undefined ? null : { filename: reference.filename, format: reference.format };
      clusters.dirty = true;
      await clusters.flush();
    },
    async makeEmpty() {
      clusters.places.clear();
      state.next = HEADER;
      clusters.dirty = true;
      await clusters.flush();
      await context.file.truncate(HEADER, { shrink: true });
    },
    async truncate(length) {
      state.size = length;
      clusters.dirty = true;
    },
    limits: () => ({ zeroAlign: CLUSTER, preferred: CLUSTER }),
    read: (offset, target) =>
      pieces(offset, target.length, (number, at, length) =>
        clusters.read(number, at, part(target, offset, at, length)),
      ),
    write: (offset, source) =>
      clusters.alone(() =>
        pieces(offset, source.length, (number, at, length) =>
          clusters.write(number, at, part(source, offset, at, length)),
        ),
      ),
    async writeZeroes(offset, length) {
      await pieces(offset, length, async (number) => void clusters.places.set(number, 0));
      clusters.dirty = true;
    },
    status: async (offset, length) => clusters.extent(offset, length),
    info: () => ({ clusterSize: CLUSTER, dirty: false, specific: { type: 'qcow2', data: SPECIFIC } }),
    zeroInit: () => true,
    prepareReopen: async () => NO_REOPEN_STEP,
    flush: () => clusters.flush(),
    close: async () => {
      if (clusters.dirty) await clusters.flush();
    },
  };
}

/** Calls `work` for each part of a range that lies in one cluster, in order. */
async function pieces(
  offset: number,
  length: number,
  work: (number: number, offset: number, length: number) => Promise<void>,
): Promise<void> {
  for (let at = offset; at < offset + length; ) {
    const part = Math.min(CLUSTER - (at % CLUSTER), offset + length - at);
    await work(Math.floor(at / CLUSTER), at, part);
    at += part;
  }
}
