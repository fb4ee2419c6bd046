/** Q-BMP-4 to 8: whatever is done with an image's bitmaps, the next session has what a model has, also after a crash. */
import { expect, test } from 'vitest';
import { bitmaps } from '../../src/bitmaps/bitmaps.ts';
import { createImage } from '../../src/core/create.ts';
import type { Disk } from '../../src/core/disk.ts';
import { SeededRandom, SimHost } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { readBitmaps } from '../support/qcow2-bitmaps.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';

interface Model {
  readonly granularity: number;
  recording: boolean;
  inconsistent: boolean;
  dirty: Set<number>;
}

const LENGTH_MAX = 2 << 20;
const CLUSTERS = [512, 4096, 65536];

/** Granules in order; quick to compare, however many they are. */
function text(granules: Iterable<number>): string {
  return Int32Array.from(granules).sort().join();
}

class Trial {
  readonly random: SeededRandom;
  readonly cluster: number;
  host = new SimHost({ record: false });
  length = 1 << 20;
  models = new Map<string, Model>();
  /** As the image has them. */
  stored = new Map<string, Model>();
  changed = false;
  /** Bitmaps were changed by their users since the image was told. */
  edited = false;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
    this.cluster = this.random.pick(CLUSTERS);
  }

  open(): Promise<Disk> {
    return graphOn(this.host).open(PATH, { format: 'qcow2', writable: true, discard: 'unmap' });
  }

  touch(offset: number, length: number): void {
    if (length === 0) return;
    this.changed = true;
    for (const model of this.models.values()) {
      if (!model.recording || model.inconsistent) continue;
      const last = Math.floor((offset + length - 1) / model.granularity);
      for (let at = Math.floor(offset / model.granularity); at <= last; at++) model.dirty.add(at);
    }
  }

  async change(disk: Disk): Promise<void> {
    const { random, cluster } = this;
    const kind = random.below(4);
    const offset = random.below(this.length);
    const length = Math.min(this.length - offset, random.between(1, random.chance(0.2) ? 300_000 : 3000));
    if (kind === 0) {
      await disk.writeZeroes(offset, length, { unmap: random.chance(0.5) });
      this.touch(offset, length);
    } else if (kind === 1) {
      await disk.discard(offset, length);
      const start = Math.ceil(offset / cluster) * cluster;
      const end = offset + length;
      const stop = end === this.length ? end : Math.floor(end / cluster) * cluster;
      if (stop > start) this.touch(start, stop - start);
    } else if (kind === 2 && ![...this.models.values()].some(({ inconsistent }) => inconsistent)) {
      this.length = random.between(1, LENGTH_MAX / 512) * 512;
      await disk.resize(this.length, { shrink: true });
      this.changed = true;
      for (const model of this.models.values()) {
        const count = Math.ceil(this.length / model.granularity);
        model.dirty = new Set([...model.dirty].filter((granule) => granule < count));
      }
    } else {
      await disk.write(offset, new Uint8Array(length).fill(random.below(256)));
      this.touch(offset, length);
    }
  }

  async manage(disk: Disk): Promise<void> {
    const { random, models } = this;
    const list = bitmaps(disk);
    const name = `b${random.below(5)}`;
    const model = models.get(name);
    if (model === undefined) {
      const granularity = 2 ** random.between(9, 20);
      const disabled = random.chance(0.3);
      await list.add(name, { persistent: true, granularity, disabled });
      models.set(name, { granularity, recording: !disabled, inconsistent: false, dirty: new Set() });
    } else if (model.inconsistent || random.chance(0.15)) {
      await list.remove(name);
      models.delete(name);
      this.stored.delete(name);
    } else {
      const other = random.pick([...models.entries()]);
      const kind = random.below(4);
      if (kind === 3 && other[1].inconsistent) return;
      if (kind === 0) list.enable(name);
      else if (kind === 1) list.disable(name);
      else if (kind === 2) list.clear(name);
      else list.merge(name, [other[0]]);
      if (kind < 2) model.recording = kind === 0;
      else if (kind === 2) model.dirty.clear();
      else this.#merge(model, other[1]);
    }
    this.edited = true;
  }

  #merge(model: Model, other: Model): void {
    for (const granule of [...other.dirty]) {
      const end = Math.min(this.length, (granule + 1) * other.granularity);
      const last = Math.floor((end - 1) / model.granularity);
      const first = Math.floor((granule * other.granularity) / model.granularity);
      for (let at = first; at <= last; at++) model.dirty.add(at);
    }
  }

  compare(disk: Disk): void {
    const list = bitmaps(disk);
    const told = list.list().map(({ name, recording, inconsistent = false }) => ({ name, recording, inconsistent }));
    const expected = [...this.models].map(([name, { recording, inconsistent }]) => ({
      name,
      recording: recording && !inconsistent,
      inconsistent,
    }));
    const sorted = <T extends { readonly name?: string | undefined }>(all: T[]) =>
      all.sort((a, b) => (a.name ?? '').localeCompare(b.name ?? ''));
    expect(sorted(told)).toEqual(sorted(expected));
    for (const [name, { granularity, inconsistent, dirty }] of this.models) {
      if (inconsistent) continue;
      const found = new Set<number>();
      for (const { offset, length } of list.dirtyAreas(name)) {
        for (let at = offset; at < offset + length; at += granularity) found.add(Math.floor(at / granularity));
      }
      expect(text(found)).toBe(text(dirty));
    }
  }

  /** The image as the model says, read without the driver. */
  compareStored(): void {
    const { valid, bitmaps: found } = readBitmaps(this.host.contents(PATH));
    expect(valid).toBe(this.stored.size > 0);
    expect(found.map(({ name }) => name).sort()).toEqual([...this.stored.keys()].sort());
    for (const { name, inUse, auto, dirty } of found) {
      const model = this.stored.get(name);
      expect(inUse).toBe(model?.inconsistent);
      if (inUse) continue;
      expect(auto).toBe(model?.recording);
      expect(text(dirty)).toBe(text(model?.dirty ?? []));
    }
  }

  copies(models: ReadonlyMap<string, Model>): Map<string, Model> {
    return new Map([...models].map(([name, model]) => [name, { ...model, dirty: new Set(model.dirty) }]));
  }

  /** Stores the bitmaps if users have changed any. */
  async flush(disk: Disk): Promise<void> {
    await disk.flush();
    if (!this.edited) return;
    this.stored = this.copies(this.models);
    this.changed = false;
    this.edited = false;
  }

  async close(disk: Disk): Promise<void> {
    await disk.close();
    this.stored = this.copies(this.models);
  }

  /** The program ends; what it had begun to write is all there. */
  async crash(disk: Disk): Promise<void> {
    const bytes = this.host.contents(PATH);
    await disk.close();
    this.host = new SimHost({ record: false });
    this.host.put(PATH, bytes);
    if (this.changed) for (const model of this.stored.values()) model.inconsistent = true;
    this.models = this.copies(this.stored);
  }

  async check(repair: 'none' | 'leaks' | 'all'): Promise<void> {
    await using disk = await graphOn(this.host).open(PATH, {
      format: 'qcow2',
      checkOnly: true,
      writable: repair !== 'none',
    });
    const lines: string[] = [];
    const { corruptions, leaks } = await disk.check({ repair, finding: (line) => void lines.push(line) });
    expect({ corruptions, leaks, lines }).toEqual({ corruptions: 0, leaks: 0, lines: repair === 'none' ? [] : lines });
  }
}

async function run(seed: number): Promise<void> {
  const trial = new Trial(seed);
  const options = { cluster_size: trial.cluster, lazy_refcounts: seed % 3 === 0 };
  await createImage(graphOn(trial.host), { filename: PATH, format: 'qcow2', size: trial.length, options });
  for (let session = 0; session < 5; session++) {
    const disk = await trial.open();
    trial.length = disk.length;
    trial.changed = false;
    trial.edited = false;
    trial.compare(disk);
    for (let i = trial.random.below(12); i > 0; i--) {
      if (trial.random.chance(0.5)) await trial.change(disk);
      else await trial.manage(disk);
      if (trial.random.chance(0.1)) await trial.flush(disk);
    }
    trial.compare(disk);
    const crashes = trial.random.chance(0.25);
    await (crashes ? trial.crash(disk) : trial.close(disk));
    trial.compareStored();
    // Lazy counts may be behind, as the dirty bit says.
    await trial.check(!crashes ? 'none' : options.lazy_refcounts ? 'all' : 'leaks');
  }
}

const trials = longMode ? 3000 : 24;

test(`${trials} random lives of images with bitmaps`, { timeout: longMode ? 3_600_000 : 60_000 }, async () => {
  for (let seed = testSeed; seed < testSeed + trials; seed++) {
    try {
      await run(seed);
    } catch (error) {
      throw new Error(`seed ${seed}: ${error}`, { cause: error });
    }
  }
});
