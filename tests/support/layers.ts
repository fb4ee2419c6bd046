/** Small chains of images on a simulated host, whose drivers fail when they are told to. */
import { createImage } from '../../src/core/create.ts';
import type { Disk, OpenOptions } from '../../src/core/disk.ts';
import type { DriverSpec } from '../../src/core/driver.ts';
import { BlockError } from '../../src/core/errors.ts';
import { Graph, type GraphOptions } from '../../src/core/graph.ts';
import type { BlockNode } from '../../src/core/node.ts';
import type { NestedOptions } from '../../src/core/options.ts';
import { raw } from '../../src/formats/raw.ts';
import { file } from '../../src/protocols/file.ts';
import { SimHost } from '../../src/testing/index.ts';
import { invertFilter, type LayerStep, layerFormat, passFilter } from './overlay-format.ts';

export const SIZE = 8192;

export class Layers {
  readonly host = new SimHost();
  readonly graph: Graph;
  /** `STEP NODE` that drivers did, in order. */
  readonly steps: string[] = [];
  /** Steps that fail now, as `STEP` or `STEP NODE`. */
  readonly failing = new Set<string>();
  readonly counts = { reads: 0, writes: 0 };

  constructor({ drivers = [], ...options }: Partial<GraphOptions> = {}) {
    const hook = (step: LayerStep, node: string) => {
      this.steps.push(`${step} ${node}`);
      if (this.failing.has(step) || this.failing.has(`${step} ${node}`)) {
        throw new BlockError('EIO', `${step} of '${node}' fails`, { node });
      }
    };
    const all: DriverSpec[] = [file, raw, layerFormat(hook), passFilter(hook), invertFilter(this.counts), ...drivers];
    this.graph = new Graph({ host: this.host, drivers: all, ...options });
    this.host.put('/base.raw', new Uint8Array(SIZE).fill(0xba));
  }

  /** Makes an image `/NAME.layer`, over `/BELOW.layer` or `/base.raw`. */
  async make(name: string, below?: string, size = SIZE): Promise<string> {
    const filename = `/${name}.layer`;
    const backing =
      below === undefined
        ? {}
        : below === 'base'
          ? { backing_file: '/base.raw', backing_fmt: 'raw' }
          : { backing_file: `/${below}.layer`, backing_fmt: 'layer' };
    await createImage(this.graph, { filename, format: 'layer', options: { size, cluster: 1024, ...backing } });
    return filename;
  }

  /** Options that open `/NAME.layer` with nodes NAME and NAME-file, over nodes of the images below, and so on. */
  tree(name: string, ...below: readonly string[]): NestedOptions {
    const [next, ...rest] = below;
    const raw = name === 'base';
    return {
      driver: raw ? 'raw' : 'layer',
      'node-name': name,
      file: { driver: 'file', filename: raw ? '/base.raw' : `/${name}.layer`, 'node-name': `${name}-file` },
      ...(next !== undefined && { backing: this.tree(next, ...rest) }),
    };
  }

  /** Makes and opens a chain: the last of `names` is its base. */
  async chain(names: readonly string[], options: OpenOptions = { writable: true }): Promise<Disk> {
    for (const [index, name] of [...names.entries()].reverse()) {
      if (name !== 'base') await this.make(name, names[index + 1]);
    }
    const [top = '', ...below] = names;
    this.steps.length = 0;
    return this.graph.open(this.tree(top, ...below), options);
  }

  node(name: string): BlockNode {
    const node = this.graph.node(name);
    if (node === undefined) throw new TypeError(`there is no node '${name}'`);
    return node;
  }

  get names(): string[] {
    return this.graph.nodes().map(({ name }) => name);
  }
}

export function filled(byte: number, length = 1024): Uint8Array {
  return new Uint8Array(length).fill(byte);
}

/** A disk's bytes at the starts of its clusters. */
export async function heads(disk: Disk): Promise<number[]> {
  const bytes = await disk.read(0, disk.length);
  return Array.from({ length: Math.ceil(bytes.length / 1024) }, (_, index) => bytes[index * 1024] ?? 0);
}
