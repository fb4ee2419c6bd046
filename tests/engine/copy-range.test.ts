/** Copies inside the host, as the core sees them. */
import { describe, expect, test } from 'vitest';
import { type DriverNode, type DriverSpec, defineFilter, defineFormat } from '../../src/core/driver.ts';
import type { BlockNode } from '../../src/core/node.ts';
import type { NestedOptions } from '../../src/core/options.ts';
import { raw } from '../../src/formats/raw.ts';
import { failureOf, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

/** A storage whose nodes copy among one another. */
function copying(name = 'store') {
  const storage = new Storage(8192);
  storage.bytes.fill(7, 0, 4096);
  const story: string[] = [];
  const spec = storageProtocol(storage, name);
  const open = async (): Promise<DriverNode> => ({
    ...storage.node(),
    async copyFrom(_source, from, to, length) {
      story.push(`${from} to ${to}, ${length}`);
      return length;
    },
  });
  return { storage, story, spec: { ...spec, open } as DriverSpec };
}

const filter = defineFilter({ name: 'filter', summary: '', options: {}, open: async () => ({}) });
const other = copying('other').spec;

/** What a node's trackers are told. */
function watch(node: BlockNode | undefined): string[] {
  const told: string[] = [];
  const changed = (offset: number, length: number) => void told.push(`${offset}+${length}`);
  if (node !== undefined) node.trackers = [{ changed, checkResize() {}, resized() {} }];
  return told;
}

async function disks(source: NestedOptions, target: NestedOptions) {
  const { spec, story } = copying();
  const graph = graphOf([spec, other, plainFormat, filter, raw]);
  const [from, to] = [await graph.open(source), await graph.open(target, { writable: true })];
  return { story, from, to };
}

const STORE = { driver: 'store' };

describe('copying inside the host', () => {
  test('goes from protocol to protocol, through windows', async () => {
    const { from, to, story } = await disks(
      { driver: 'raw', offset: 1024, file: STORE },
      { driver: 'raw', file: STORE },
    );
    expect(await to.copyFrom(from, 512, 2048, 1000)).toBe(1000);
    expect(story).toEqual(['1536 to 2048, 1000']);
  });

  test('BL-BITMAP-7: all nodes on the way keep track of it, and the next flush writes it', async () => {
    const { from, to } = await disks(STORE, { driver: 'raw', offset: 512, file: STORE });
    const below = to.node.child('file')?.node;
    const told = [watch(to.node), watch(below), watch(from.node)];
    await to.copyFrom(from, 0, 1024, 2048);
    expect(told).toEqual([['1024+2048'], ['1536+2048'], []]);
    expect(below?.writeGeneration).toBe(1);
  });

  test('is refused where requests may be more than passed on, and between drivers', async () => {
    for (const [source, target] of [
      [STORE, { driver: 'plain', file: STORE }],
      [{ driver: 'filter', file: STORE }, STORE],
      [STORE, { driver: 'filter', file: STORE }],
      [{ driver: 'other' }, STORE],
    ] as const) {
      const { from, to } = await disks(source, target);
      expect((await failureOf(to.copyFrom(from, 0, 0, 512))).code).toBe('ENOTSUP');
    }
  });

  test('BL-OPEN-16: is refused into a raw image of guessed format', async () => {
    const { spec } = copying('file');
    const marked = defineFormat({ ...plainFormat, name: 'marked', probe: (head) => (head[0] === 9 ? 100 : 0) });
    const graph = graphOf([spec, marked, raw]);
    const from = await graph.open({ driver: 'file' });
    const to = await graph.open('x', { writable: true });
    expect((await failureOf(to.copyFrom(from, 0, 0, 512))).code).toBe('ENOTSUP');
  });
});
