/** Random chains: what a commit or a rebase does to images, and that what is read stays as it was. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { imagesOf } from '../../src/core/chain.ts';
import { commit } from '../../src/jobs/commit.ts';
import { convert } from '../../src/jobs/convert.ts';
import { rebase } from '../../src/jobs/rebase.ts';
import { chainWorld, KIB, type Layer, makeChain, open, read, same } from '../support/chains.ts';
import { bytesWith, makeImage } from '../support/job-disks.ts';

/** Sizes and places are multiples of 32 KiB, half a cluster. */
const UNIT = 32 * KIB;

const layer: fc.Arbitrary<Layer> = fc.integer({ min: 2, max: 16 }).chain((units) => {
  const write = fc
    .tuple(fc.nat(units - 1), fc.integer({ min: 1, max: 4 }), fc.boolean())
    .map(([start, count, zero]) => {
      const length = Math.min(count, units - start) * UNIT;
      return zero ? ([start * UNIT, length, 'zero'] as const) : ([start * UNIT, length] as const);
    });
  return fc.record({ size: fc.constant(units * UNIT), writes: fc.array(write, { maxLength: 5 }) });
});
const base = layer.map(({ size, writes = [] }): Layer => ({ size, writes: writes.filter(([, , zero]) => !zero) }));
const chain = fc.record({ base, layers: fc.array(layer, { minLength: 1, maxLength: 3 }) });

async function withChain(given: { readonly base: Layer; readonly layers: readonly Layer[] }) {
  const { graph } = chainWorld();
  const names = await makeChain(graph, given.base, ...given.layers);
  const top = names.at(-1) ?? '';
  return { graph, names, top, before: await read(graph, top) };
}

describe('random chains', () => {
  test('a commit down to any image puts the content there, and the top reads the same', async () => {
    await fc.assert(
      fc.asyncProperty(chain, fc.nat(2), fc.boolean(), async (given, down, empty) => {
        const { graph, names, top, before } = await withChain(given);
        const disk = await open(graph, top);
        const images = imagesOf(disk.node);
        const index = 1 + (down % (images.length - 1));
        await commit(disk, { base: images[index], empty });
        expect(same(await disk.read(0, disk.length), before)).toBe(true);
        await disk.close();
        const target = await read(graph, names[names.length - 1 - index] ?? '', before.length);
        expect(same(target.subarray(0, before.length), before)).toBe(true);
        expect(same(await read(graph, top), before)).toBe(true);
      }),
      { numRuns: 25 },
    );
  });

  test('a rebase to any image of the chain, to another, or to none keeps the content', async () => {
    await fc.assert(
      fc.asyncProperty(chain, base, fc.nat(4), async (given, other, choice) => {
        const { graph, names, top, before } = await withChain(given);
        const runs = (other.writes ?? []).map(([offset, length]) => [offset, length] as const);
        await makeImage(graph, '/other.raw', 'raw', bytesWith(other.size, runs, 99));
        const below = [...names.slice(0, -1), '/other.raw'];
        const filename = below[choice];
        const backing = filename && { filename, format: filename.endsWith('.raw') ? 'raw' : 'qcow2' };
        const disk = await open(graph, top);
        await rebase(disk, { backing: backing === undefined || backing === '' ? undefined : backing });
        expect(same(await disk.read(0, disk.length), before)).toBe(true);
        await disk.close();
        expect(same(await read(graph, top), before)).toBe(true);
        expect(graph.nodes()).toEqual([]);
      }),
      { numRuns: 25 },
    );
  });

  test('a conversion over the image below copies the rest', async () => {
    await fc.assert(
      fc.asyncProperty(chain, async (given) => {
        const { graph, names, top, before } = await withChain(given);
        const below = names.at(-2) ?? '';
        const backing = { filename: below, format: below.endsWith('.raw') ? 'raw' : 'qcow2' };
        const source = await open(graph, top, { writable: false });
        await convert({ graph, sources: [source], target: { filename: '/copy.img', format: 'qcow2', backing } });
        await source.close();
        expect(same(await read(graph, '/copy.img'), before)).toBe(true);
      }),
      { numRuns: 25 },
    );
  });
});
