/**
 * A small format with backing images, for tests of the graph. All that it knows is in its file at fixed places, and is
 * written at once, so that what an image stores can be read from the file's bytes alone ({@link shownByLayer}).
 *
 *      0  magic, then as text: size, cluster size, backing file name, its format; a line each, padded with zeroes
 *    512  a byte for each cluster: 0 nothing, 1 data, 2 zeroes
 *   8192  clusters, each at its place
 */
import {
  type BackingReference,
  type Child,
  type DriverNode,
  defineFilter,
  defineFormat,
  type Extent,
  type OpenContext,
  type ReopenTarget,
} from '../../src/core/driver.ts';
import { BlockError } from '../../src/core/errors.ts';
import { option } from '../../src/core/options.ts';

const MAGIC = 'LAYER';
const HEADER = 512;
const TABLE = 512;
const DATA = 8192;
const NAME_MAX = 300;
const NOTHING = 0;
const STORED = 1;
const ZERO = 2;

/** Called at steps of drivers; what it throws or waits for happens there. */
export type Hook = (step: LayerStep, node: string) => void;
export type LayerStep =
  | 'open'
  | 'prepareReopen'
  | 'preparePermissions'
  | 'changeBacking'
  | 'flush'
  | 'close'
  | 'truncate';

interface LayerOptions {
  /** Of no effect; a reopen may change it. */
  readonly label: string;
  /** A reopen may not change it. */
  readonly fixed: number;
}

interface LayerCreateOptions {
  readonly size: number;
  readonly cluster: number;
  readonly backing_file: string | undefined;
  readonly backing_fmt: string | undefined;
}

interface Header {
  readonly size: number;
  readonly cluster: number;
  readonly backing: BackingReference | undefined;
}

function encodeHeader({ size, cluster, backing }: Header): Uint8Array {
  const text = [MAGIC, size, cluster, backing?.filename ?? '', backing?.format ?? '', ''].join('\n');
  const bytes = new Uint8Array(HEADER);
  bytes.set(new TextEncoder().encode(text));
  return bytes;
}

function decodeHeader(bytes: Uint8Array): Header {
  const [magic, size, cluster, filename = '', format = ''] = new TextDecoder()
    .decode(bytes.subarray(0, HEADER))
    .split('\n');
  if (magic !== MAGIC) throw new BlockError('EINVAL', 'Image is not in layer format');
  return { size: Number(size), cluster: Number(cluster), backing: filename === '' ? undefined : { filename, format } };
}

/** What an image reads as by the bytes of its file, over what the image below reads as. */
export function shownByLayer(file: Uint8Array, below: Uint8Array): Uint8Array {
  const { size, cluster } = decodeHeader(file);
  const shown = new Uint8Array(size);
  for (let start = 0; start < size; start += cluster) {
    const end = Math.min(size, start + cluster);
    const state = file[TABLE + start / cluster];
    if (state === STORED) shown.set(file.subarray(DATA + start, DATA + end), start);
    else if (state !== ZERO) shown.set(below.subarray(start, end), start);
  }
  return shown;
}

export function layerFormat(hook: Hook = () => {}, name = 'layer') {
  return defineFormat<LayerOptions, LayerCreateOptions>({
    name,
    summary: 'A layer over a backing image, for tests',
    options: {
      label: option.text({ help: 'any text', fallback: '', reopen: true }),
      fixed: option.number({ help: 'any number', fallback: 0 }),
    },
    probe: (head) => (new TextDecoder().decode(head.subarray(0, MAGIC.length)) === MAGIC ? 100 : 0),
    supportsBacking: true,
    create: {
      options: {
        size: option.size({ help: 'size', fallback: 0, shown: true }),
        cluster: option.size({ help: 'cluster size', fallback: 1024 }),
        backing_file: option.text<string | undefined>({ help: 'image below', fallback: undefined }),
        backing_fmt: option.text<string | undefined>({ help: 'its format', fallback: undefined }),
      },
      async run({ file, options: { size, cluster, backing_file: filename, backing_fmt: format = '' } }) {
        const backing = filename === undefined ? undefined : { filename, format };
        await file.write(0, encodeHeader({ size, cluster, backing }));
        await file.truncate(DATA);
      },
    },
    async open(context) {
      hook('open', context.node);
      const header = new Uint8Array(HEADER);
      await context.file.read(0, header);
      const decoded = decodeHeader(header);
      const table = new Uint8Array(DATA - TABLE);
      await context.file.read(TABLE, table);
      return new Layer(context, decoded, table, hook).node();
    },
  });
}

class Layer {
  readonly #context: OpenContext<LayerOptions>;
  readonly #file: Child;
  readonly #table: Uint8Array;
  readonly #cluster: number;
  readonly #hook: Hook;
  #size: number;
  #backing: BackingReference | undefined;
  #label: string;
  #last: Promise<unknown> = Promise.resolve();

  constructor(context: OpenContext<LayerOptions>, header: Header, table: Uint8Array, hook: Hook) {
    this.#context = context;
    this.#file = context.file;
    this.#table = table;
    this.#hook = hook;
    this.#cluster = header.cluster;
    this.#size = header.size;
    this.#backing = header.backing;
    this.#label = context.options.label;
  }

  node(): DriverNode {
    const step = (name: LayerStep) => this.#hook(name, this.#context.node);
    return {
      length: () => this.#size,
      limits: () => ({ zeroAlign: this.#cluster, discardAlign: this.#cluster, preferred: this.#cluster }),
      read: (offset, target) => this.#read(offset, target),
      write: (offset, source) => this.#alone(() => this.#write(offset, source)),
      writeZeroes: (offset, length) => this.#alone(() => this.#mark(offset, length, ZERO)),
      discard: (offset, length) => this.#alone(() => this.#mark(offset, length, ZERO)),
      status: async (offset, length) => this.#extent(offset, length),
      truncate: (length) => {
        step('truncate');
        return this.#alone(() => this.#truncate(length));
      },
      flush: async () => {
        step('flush');
        await this.#file.flush();
      },
      backing: () => this.#backing,
      changeBacking: async (reference) => {
        step('changeBacking');
        if ((reference?.filename.length ?? 0) > NAME_MAX) throw new BlockError('ENOSPC', 'No space left on device');
        await this.#writeHeader(this.#size, reference);
        this.#backing = reference;
      },
      makeEmpty: async () => {
        this.#table.fill(NOTHING);
        await this.#file.write(TABLE, this.#table);
      },
      info: () => ({ clusterSize: this.#cluster, specific: { type: 'layer', data: { label: this.#label } } }),
      preparePermissions: () => {
        step('preparePermissions');
        return { commit() {}, abort() {} };
      },
      prepareReopen: (next) => this.#prepareReopen(next, step),
      close: async () => step('close'),
    };
  }

  async #prepareReopen({ options }: ReopenTarget, step: (name: LayerStep) => void) {
    step('prepareReopen');
    // Others may run meanwhile.
    await this.#file.read(0, new Uint8Array(1));
    const { label } = options as LayerOptions;
    return {
      commit: () => {
        this.#label = label;
      },
      abort() {},
    };
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  async #read(offset: number, target: Uint8Array): Promise<void> {
    for (const { at, part, state } of this.#pieces(offset, target.length)) {
      const into = target.subarray(at - offset, at - offset + part);
      const below = state === NOTHING ? this.#context.child('backing') : undefined;
      if (state === STORED) await this.#file.read(DATA + at, into);
      else if (below === undefined) into.fill(0);
      else await below.read(at, into);
    }
  }

  async #write(offset: number, source: Uint8Array): Promise<void> {
    for (const { at, part, state, number } of this.#pieces(offset, source.length)) {
      const data = source.subarray(at - offset, at - offset + part);
      if (state === STORED) await this.#file.write(DATA + at, data);
      else {
        const whole = new Uint8Array(this.#cluster);
        const start = number * this.#cluster;
        await this.#read(start, whole.subarray(0, Math.min(this.#cluster, Math.max(0, this.#size - start))));
        whole.set(data, at - start);
        await this.#file.write(DATA + start, whole);
        await this.#set(number, STORED);
      }
    }
  }

  async #mark(offset: number, length: number, state: number): Promise<void> {
    for (const { number } of this.#pieces(offset, length)) await this.#set(number, state);
  }

  async #set(number: number, state: number): Promise<void> {
    await this.#file.write(TABLE + number, Uint8Array.of(state));
    this.#table[number] = state;
  }

  async #truncate(length: number): Promise<void> {
    if (length > (DATA - TABLE) * this.#cluster) throw new BlockError('EFBIG', 'File too large');
    const last = Math.ceil(length / this.#cluster);
    for (let number = last; number * this.#cluster < this.#size; number++) await this.#set(number, NOTHING);
    const tail = last * this.#cluster - length;
    // What is behind the end must not come back when the image grows again.
    if (length < this.#size && tail > 0 && this.#table[last - 1] === STORED) {
      await this.#file.write(DATA + length, new Uint8Array(tail));
    }
    await this.#writeHeader(length, this.#backing);
    this.#size = length;
  }

  #writeHeader(size: number, backing: BackingReference | undefined): Promise<void> {
    return this.#file.write(0, encodeHeader({ size, cluster: this.#cluster, backing }));
  }

  #extent(offset: number, length: number): Extent {
    let run = 0;
    let first: number | undefined;
    for (const { part, state } of this.#pieces(offset, length)) {
      first ??= state;
      if (state !== first) break;
      run += part;
    }
    if (first === STORED) return { kind: 'data', length: run, at: { child: 'file', offset: DATA + offset } };
    return { kind: first === ZERO ? 'zero' : 'unallocated', length: run };
  }

  *#pieces(offset: number, length: number) {
    for (let at = offset; at < offset + length; ) {
      const number = Math.floor(at / this.#cluster);
      const part = Math.min((number + 1) * this.#cluster, offset + length) - at;
      yield { at, part, number, state: this.#table[number] ?? NOTHING };
      at += part;
    }
  }
}

/** A filter that leaves everything out. */
export function passFilter(hook: Hook = () => {}, name = 'pass') {
  return defineFilter<unknown>({
    name,
    summary: 'Passes everything on, for tests',
    options: {},
    async open({ node }) {
      hook('open', node);
      return {
        preparePermissions: () => {
          hook('preparePermissions', node);
          return { commit() {}, abort() {} };
        },
        close: async () => hook('close', node),
      };
    },
  });
}

/** A filter that shows every byte's complement, and counts how often it is asked. */
export function invertFilter(counts: { reads: number; writes: number } = { reads: 0, writes: 0 }) {
  const inverted = (bytes: Uint8Array) => bytes.map((byte) => byte ^ 0xff);
  return defineFilter<unknown>({
    name: 'invert',
    summary: "Shows every byte's complement, for tests",
    options: {},
    open: async ({ file }) => ({
      async read(offset, target) {
        counts.reads++;
        await file.read(offset, target);
        target.set(inverted(target));
      },
      async write(offset, source, flags) {
        counts.writes++;
        await file.write(offset, inverted(source), flags);
      },
      async writeZeroes(offset, length, flags) {
        await file.write(offset, new Uint8Array(length).fill(0xff), flags);
      },
    }),
  });
}
