/** Codecs of this machine: the system's, Node's, and WebAssembly in threads. */
import { inflateRawSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import type { ZstdCodecs } from '../core/host.ts';
import { differsAt } from '../testing/compare-bytes.ts';
import { operationData } from '../testing/disk-operations.ts';
import { nodeCodecs } from './codecs.ts';
import { loadKoffi } from './koffi.ts';
import { threadedZstd } from './zstd-thread.ts';

const text = new TextEncoder().encode('It was the best of times, it was the worst of times. '.repeat(1500));
const noise = operationData(3, 65536);
const none = () => {
  throw new Error('not installed');
};

const zstds: readonly (readonly [string, ZstdCodecs | undefined])[] = [
  ['of a host', nodeCodecs(loadKoffi).zstd()],
  ['in threads', threadedZstd(2)],
  ['of a host without the system', nodeCodecs(none).zstd()],
];

describe.each(zstds)('zstd %s', (_name, codecs) => {
  test.skipIf(codecs === undefined)('codes several at a time, each with its own answer', async () => {
    if (codecs === undefined) return;
    const sources = Array.from({ length: 12 }, (_, i) => text.subarray(i * 100, i * 100 + 20_000 + i));
    await Promise.all(
      sources.map(async (source) => {
        const target = new Uint8Array(source.length);
        const length = await codecs.compress(source, target);
        expect(length).toBeGreaterThan(0);
        expect(length).toBeLessThan(1000);
        const again = new Uint8Array(source.length);
        expect(await codecs.decompress([target.subarray(0, length)], [again])).toEqual([source.length]);
        expect(differsAt(again, source)).toBe(-1);
      }),
    );
  });

  test.skipIf(codecs === undefined)('what does not fit, and what is no frame, is -1', async () => {
    if (codecs === undefined) return;
    expect(await codecs.compress(noise, new Uint8Array(65535))).toBe(-1);
    const target = new Uint8Array(text.length);
    const frame = target.subarray(0, await codecs.compress(text, target));
    const room = [text.length - 1, 65536, text.length].map((length) => new Uint8Array(length));
    const [short, bad, good] = await codecs.decompress([frame, noise, frame], room);
    expect(short).toBe(-1);
    // Some tell of it by giving nothing.
    expect(bad).toBeLessThanOrEqual(0);
    expect(good).toBe(text.length);
    expect(differsAt(room[2] ?? noise, text)).toBe(-1);
  });
});

describe.each([
  ['of a host', nodeCodecs(loadKoffi).deflateRaw],
  ['of a host without the system', nodeCodecs(none).deflateRaw],
])('deflate %s', (_name, encode) => {
  test('codes several at a time', async () => {
    await Promise.all(
      Array.from({ length: 12 }, async (_, i) => {
        const source = text.slice(i, 30_000);
        const target = new Uint8Array(source.length);
        const length = await encode(source, target);
        expect(length).toBeGreaterThan(0);
        expect(differsAt(inflateRawSync(target.subarray(0, length)), source)).toBe(-1);
      }),
    );
    expect(await encode(noise, new Uint8Array(65535))).toBe(-1);
    expect(await encode(text, new Uint8Array(10))).toBe(-1);
  });
});

test.each([
  ['of a host', nodeCodecs(loadKoffi)],
  ['of a host without the system', nodeCodecs(none)],
])('inflate %s fills what is wanted, whatever follows', async (_name, { inflateRaw, deflateRaw }) => {
  const target = new Uint8Array(text.length);
  const stream = target.subarray(0, await deflateRaw(text, target));
  const [whole, more] = [new Uint8Array(text.length), new Uint8Array(text.length)];
  const [part, most] = [new Uint8Array(100), new Uint8Array(text.length - 20_000)];
  const sources = [stream, stream, new Uint8Array([...stream, 1, 2, 3]), stream.subarray(0, -4)];
  expect(await inflateRaw(sources, [whole, part, more, most])).toEqual([true, true, true, true]);
  for (const filled of [whole, part, more, most]) expect(differsAt(filled, text.subarray(0, filled.length))).toBe(-1);
  const bad = [stream, noise, new Uint8Array(0), stream];
  const room = [new Uint8Array(text.length + 1), more, more, whole];
  expect(await inflateRaw(bad, room)).toEqual([false, false, false, true]);
  expect(await inflateRaw([], [])).toEqual([]);
});
