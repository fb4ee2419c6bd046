/** A graph over simulated files whose drivers fail on demand, with all that its users hold, and what disks should read as. */
import { createImage } from '../../src/core/create.ts';
import type { Disk } from '../../src/core/disk.ts';
import { BlockError } from '../../src/core/errors.ts';
import { Graph } from '../../src/core/graph.ts';
import { BlockNode } from '../../src/core/node.ts';
import { raw } from '../../src/formats/raw.ts';
import { file } from '../../src/protocols/file.ts';
import { SeededRandom, SimHost } from '../../src/testing/index.ts';
import { checkGraph } from './graph-checks.ts';
import { layerFormat, passFilter, shownByLayer } from './overlay-format.ts';

export const BASES = ['/base0.raw', '/base1.raw'];
export const CLUSTER = 1024;
const IMAGES = 5;

/** Virtual milliseconds after which something waits for ever. */
const FOREVER = 1e12;

export class GraphWorld {
  readonly random: SeededRandom;
  readonly host: SimHost;
  readonly graph: Graph;
  /** Open disks, and what they should read as; undefined: to be learned. */
  readonly disks = new Map<Disk, Uint8Array | undefined>();
  readonly held: BlockNode[] = [];
  readonly frozen: { readonly top: BlockNode; unfreeze(): void }[] = [];
  /** Steps of drivers that fail now, this often. */
  failing = 0;
  /** What was done, for failures' texts. */
  readonly story: string[] = [];
  images: string[] = [];
  #nextImage = 0;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
    this.host = new SimHost({ seed, latency: { min: 0, max: 2 }, record: false, refuseNow: 0.3 });
    const hook = (step: string, node: string) => {
      if (!this.random.chance(this.failing)) return;
      throw new BlockError('EIO', `simulated failure of ${step} of '${node}'`, { node });
    };
    const drivers = [file, raw, layerFormat(hook), passFilter(hook)];
    this.graph = new Graph({ host: this.host, drivers });
  }

  async prepare(): Promise<void> {
    for (const [index, path] of BASES.entries()) {
      const bytes = new Uint8Array(8192 + 4096 * index);
      this.random.fill(bytes);
      this.host.put(path, bytes);
    }
    for (let i = 0; i < IMAGES; i++) {
      const below = this.random.pick([...BASES, ...this.images, undefined]);
      await this.makeImage(below, this.random.pick([6144, 8192, 12288, 7680]));
    }
  }

  async makeImage(below: string | undefined, size: number): Promise<string> {
    const filename = this.newImageName();
    const backing_fmt = below?.endsWith('.raw') ? 'raw' : 'layer';
    const options = { size, cluster: CLUSTER, ...(below !== undefined && { backing_file: below, backing_fmt }) };
    await createImage(this.graph, { filename, format: 'layer', options });
    this.images.push(filename);
    return filename;
  }

  newImageName(): string {
    return `/${this.#nextImage++}.layer`;
  }

  /** Fails, instead of never, when `work` cannot end. */
  async inTime<T>(work: Promise<T>): Promise<T> {
    const ended = new AbortController();
    const late = this.host.clock.sleep(FOREVER, ended.signal).then(
      () => {
        throw new TypeError('it never ends');
      },
      () => undefined as never,
    );
    try {
      return await Promise.race([work, late]);
    } finally {
      ended.abort();
    }
  }

  /** What a node reads as by the bytes of files and the links of the graph alone. */
  contentOf(node: BlockNode): Uint8Array {
    if (node.filtered !== undefined) return this.contentOf(node.filtered.node);
    if (node.driver.name === 'file') return this.host.contents(node.filename);
    const storage = this.contentOf((node.child('file') as { node: BlockNode }).node);
    if (node.driver.name === 'raw') return storage;
    return shownByLayer(storage, node.backing === undefined ? new Uint8Array(0) : this.contentOf(node.backing.node));
  }

  /** What disks read as is learned anew at the next check. */
  forgetData(): void {
    for (const disk of this.disks.keys()) this.disks.set(disk, undefined);
  }

  /** Throws what is no BlockError, and what could not end. */
  readonly expected = (error: unknown): void => {
    if (!(error instanceof BlockError)) throw error;
  };

  /** Everything is as it must be, and every disk reads as it should. Learns what is not known. */
  async check(): Promise<void> {
    await checkGraph(this.graph, this.host);
    for (const [disk, expected] of this.disks) {
      const shown = this.contentOf(disk.node);
      const seen = await this.inTime(disk.read(0, disk.length));
      this.same(seen, shown, `'${disk.nodeName}' reads as its files say`);
      if (expected !== undefined) this.same(seen, expected, `'${disk.nodeName}' reads as was written`);
      this.disks.set(disk, seen);
    }
    const users = this.graph
      .nodes()
      .flatMap(({ parents }) => parents.filter(({ parent }) => !(parent instanceof BlockNode)));
    if (users.length !== this.disks.size) throw new TypeError(`${users.length} links for ${this.disks.size} disks`);
    for (const node of this.graph.nodes()) {
      const holds = this.held.filter((other) => other === node).length;
      if (holds !== node.holds) throw new TypeError(`'${node.name}' is held ${node.holds} times, not ${holds}`);
    }
  }

  same(seen: Uint8Array, wanted: Uint8Array, what: string): void {
    const length = Math.max(seen.length, wanted.length);
    for (let i = 0; i < length; i++) {
      if (seen[i] === wanted[i]) continue;
      throw new TypeError(
        `${what}, but at byte ${i} of ${wanted.length} (${seen.length}) is ${seen[i]}, not ${wanted[i]}`,
      );
    }
  }

  unfreeze(): void {
    this.frozen.pop()?.unfreeze();
  }

  /** Lets go of everything; nothing may be left. */
  async end(): Promise<void> {
    this.failing = 0;
    this.host.faults.clear();
    while (this.frozen.length > 0) this.unfreeze();
    const left: Promise<void>[] = [...this.disks.keys()].map((disk) => disk.close());
    this.disks.clear();
    for (const node of this.held.splice(0)) left.push(this.graph.release(node));
    await this.inTime(Promise.all(left));
    const leaked = [...this.graph.nodes().map(({ name }) => name), ...this.host.openFiles];
    if (leaked.length > 0) throw new TypeError(`left open: ${leaked.join(', ')}`);
  }
}
