/** VDI images from an enemy: every field at its extremes, cut off anywhere, bytes changed at random. */
import { describe, expect, test } from 'vitest';
import { SeededRandom } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { FREE, makeVdi, VDI_FIELDS, type VdiField, ZERO } from '../support/vdi-bytes.ts';
import { vdiImage } from '../support/vdi-image.ts';
import { countAllocations } from './allocations.ts';
import { torment } from './hostile-image.ts';

const BASES: Readonly<Record<string, Uint8Array>> = {
  'small blocks': makeVdi({ diskSize: 10 * 4096 - 512, blockSize: 4096, map: [1, FREE, 0, ZERO, 3, 2] }),
  'a fixed image': makeVdi({ diskSize: 4 * 4096, blockSize: 4096, map: [0, 1, 2, 3], type: 2 }),
  'an empty image with 1 MiB blocks': makeVdi({ diskSize: 5 << 20 }),
  'extra bytes, a short header': makeVdi({
    diskSize: 6 * 4096,
    blockSize: 4096,
    map: [FREE, 0, 1],
    blockExtra: 512,
    headerSize: 0x180,
  }),
  'a differencing image': vdiImage(
    { diskSize: 6 * 4096 - 512, map: [1, FREE, 0, ZERO, FREE, FREE] },
    { uuid: 2, link: 1 },
  ),
  'a map of its own sector': makeVdi({
    diskSize: 3 * 8192,
    blockSize: 8192,
    map: [0, FREE, 1],
    mapOffset: 4096,
    dataOffset: 8192,
  }),
};

const FIELDS = Object.keys(VDI_FIELDS) as VdiField[];
const EXTREMES = [
  0, 1, 2, 3, 4, 5, 16, 0x7f, 0xff, 0x100, 0x180, 0x190, 0x1ff, 0x200, 0x201, 0x400, 0xfff, 0x1000, 0x1001, 0x10000,
  0x10001, 0xfffff, 0x100000, 0x100001, 0x1000000, 0x10000000, 0x1fffff80, 0x20000000, 0x3fffffff, 0x40000000,
  0x7ffffffe, 0x7fffffff, 0x80000000, 0x80000001, 0xbeda107f, 0xfffffffd, 0xfffffffe, 0xffffffff,
];

function changed(base: Uint8Array, change: (view: DataView, bytes: Uint8Array) => void): Uint8Array {
  const bytes = base.slice();
  change(new DataView(bytes.buffer), bytes);
  return bytes;
}

/** Runs one hostile image; a failure says how to make it again. */
async function run(bytes: Uint8Array, how: string): Promise<string> {
  try {
    return await torment(bytes);
  } catch (error) {
    throw new Error(`${how}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

describe('hostile VDI images', () => {
  for (const [turn, [name, base]] of Object.entries(BASES).entries()) {
    test(`${name}: as it is, it opens`, async () => {
      expect(await run(base, name)).toBe('done');
    });

    test(`${name}: every header field at its extremes`, async () => {
      const lengths = [base.length, base.length - 1, base.length + 1, base.length / 4, base.length * 2];
      for (const [index, field] of FIELDS.entries()) {
        const own = new DataView(base.buffer).getUint32(VDI_FIELDS[field], true);
        // But in the long mode a third of them, another for each field and base.
        const extremes = EXTREMES.filter((_, place) => longMode || (place + index + turn) % 3 === 0);
        for (const value of [...extremes, ...lengths, own + 1, own - 1, own * 2]) {
          const bytes = changed(base, (view) => view.setUint32(VDI_FIELDS[field], value, true));
          await run(bytes, `${name}, ${field} = ${value}`);
        }
      }
    });

    test(`${name}: every map entry at its extremes`, async () => {
      const view = new DataView(base.buffer);
      const map = view.getUint32(VDI_FIELDS.mapOffset, true);
      const blocks = view.getUint32(VDI_FIELDS.blocks, true);
      for (let block = 0; block < blocks; block++) {
        for (const value of [0, 1, 2, 5, blocks - 1, blocks, blocks + 1, 0x7fffffff, 0xfffffffd, ZERO, FREE]) {
          const bytes = changed(base, (words) => words.setUint32(map + block * 4, value, true));
          await run(bytes, `${name}, entry ${block} = ${value}`);
        }
      }
    });

    test(`${name}: cut off anywhere`, async () => {
      const lengths = new Set<number>();
      for (let length = 0; length <= 600; length += longMode ? 1 : 7) lengths.add(length);
      const edges = [0x40, 0x44, 0x48, 0x180, 0x1c8, 0x200, 0x400, base.length];
      for (const edge of edges) for (const step of [-1, 0, 1]) lengths.add(edge + step);
      for (let length = 512; length < base.length; length += longMode ? 256 : 1777) lengths.add(length);
      for (const length of lengths) {
        if (length > base.length) continue;
        await run(base.slice(0, length), `${name}, cut to ${length} bytes`);
      }
    });
  }

  const mutations = longMode ? 120_000 : 4000;
  test(`${mutations} random mutations`, async () => {
    const bases = Object.entries(BASES);
    const random = new SeededRandom(testSeed);
    for (let i = 0; i < mutations; i++) {
      const [name, base] = random.pick(bases);
      const seed = random.uint32();
      await run(mutate(base, new SeededRandom(seed)), `${name}, mutation seed ${seed}`);
    }
  });
});

/** One to five changes: fields, map entries, single bytes and bits, swapped words, a cut, an addition. */
function mutate(base: Uint8Array, random: SeededRandom): Uint8Array {
  let bytes = base.slice();
  for (let changes = random.between(1, 5); changes > 0; changes--) {
    const view = new DataView(bytes.buffer);
    const metadata = Math.min(bytes.length - 4, 0x240);
    if (metadata < 0) return bytes;
    const word = random.pick([
      random.pick(EXTREMES),
      random.uint32(),
      random.below(64),
      random.below(bytes.length + 2),
    ]);
    const action = random.below(8);
    if (action <= 2) view.setUint32(Math.min(VDI_FIELDS[random.pick(FIELDS)], metadata), word, true);
    else if (action === 3) view.setUint32(Math.min(0x200 + random.below(16) * 4, metadata), word, true);
    else if (action === 4) bytes[random.below(metadata + 4)] = random.below(256);
    else if (action === 5) {
      const at = random.below(metadata + 4);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
    } else if (action === 6) bytes = bytes.slice(0, random.pick([random.below(bytes.length + 1), random.below(0x400)]));
    else view.setUint32(random.below(metadata), view.getUint32(random.below(metadata), true), true);
  }
  return bytes;
}

test('the counter of allocations sees them', async () => {
  const { largest, total } = await countAllocations(async () => {
    new Uint8Array(1000).slice(0, 10);
    new DataView(new ArrayBuffer(5000));
    new Uint32Array(new ArrayBuffer(400), 0, 10);
  });
  expect(largest).toBe(5000);
  expect(total).toBeGreaterThanOrEqual(6400);
});
