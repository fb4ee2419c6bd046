/** zstd frames as clusters are made of (Q-MAP-6): several, skippable ones, and those that would cost too much. */
import { describe, expect, test } from 'vitest';
import { nodeHost } from '../../node/host.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import { SimHost } from '../../testing/index.ts';
import { decodeZstd, encodeZstd } from './zstd.ts';

const CLUSTER = 8192;
const content = Uint8Array.from({ length: CLUSTER }, (_, i) => (i >> 5) ^ (i % 7));

const joined = (...parts: readonly Uint8Array[]) => new Uint8Array(parts.flatMap((part) => [...part]));

/** Four bits of its magic number are free. */
function skippable(kind: number, length: number): Uint8Array {
  const frame = new Uint8Array(8 + length).fill(0xee);
  new DataView(frame.buffer).setUint32(0, 0x184d2a50 + kind, true);
  new DataView(frame.buffer).setUint32(4, length, true);
  return frame;
}

describe.each([
  ['of the system', nodeHost()],
  ['on the event loop', new SimHost({ record: false })],
])('zstd %s', (_name, host) => {
  async function frameOf(start: number, end: number): Promise<Uint8Array> {
    const target = new Uint8Array(CLUSTER);
    return target.subarray(0, await encodeZstd(host, content.slice(start, end), target));
  }

  test('decodes many clusters at once, of one frame or several, each by itself', async () => {
    const whole = await frameOf(0, CLUSTER);
    const halves = [await frameOf(0, 4096), await frameOf(4096, CLUSTER)];
    const empty = await frameOf(0, 0);
    const noise = new Uint8Array(100).fill(0x5a);
    const good = [
      whole,
      joined(whole, noise),
      joined(...halves),
      joined(skippable(0, 0), ...halves, noise),
      joined(halves[0] ?? noise, skippable(15, 30), empty, halves[1] ?? noise),
    ];
    const bad = [
      noise,
      new Uint8Array(0),
      whole.subarray(0, -1),
      halves[0] ?? noise,
      joined(halves[0] ?? noise, whole),
      joined(halves[0] ?? noise, noise),
      joined(skippable(3, 20)),
      skippable(3, 20).subarray(0, 25),
    ];
    const targets = [...good, ...bad].map(() => new Uint8Array(CLUSTER));
    const results = await decodeZstd(host, [...good, ...bad], targets);
    expect(results).toEqual([...good.map(() => true), ...bad.map(() => false)]);
    for (const target of targets.slice(0, good.length)) expect(differsAt(target, content)).toBe(-1);
  });

  test('refuses a frame that asks for a window of more than 8 MiB', async () => {
    // Magic number, no content size, a window of 2^(10 + n), and a last block, raw, of all bytes.
    const raw = (exponent: number) => {
      const block = (CLUSTER << 3) | 1;
      const header = [0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3, block & 0xff, (block >> 8) & 0xff, block >> 16];
      return joined(Uint8Array.from(header), content);
    };
    const targets = [13, 14].map(() => new Uint8Array(CLUSTER));
    expect(await decodeZstd(host, [raw(13), raw(14)], targets)).toEqual([true, false]);
    expect(differsAt(targets[0] ?? content.subarray(1), content)).toBe(-1);
  });
});
