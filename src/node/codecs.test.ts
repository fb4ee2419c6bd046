/** Codecs of this machine: the system's, Node's, and WebAssembly in threads. */
import { inflateRawSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import type { ZstdCodecs } from '../core/host.ts';
import { differsAt } from '../testing/compare-bytes.ts';
import { operationData } from '../testing/disk-operations.ts';
import { nodeCodecs } from './codecs.ts';
import { loadKoffi } from './koffi.ts';
import { nativeDeflate, nativeZstd } from './native-codecs.ts';
import { builtInZstd } from './zlib-codecs.ts';
import { threadedZstd } from './zstd-thread.ts';

const text = new TextEncoder().encode('It was the best of times, it was the worst of times. '.repeat(1500));
const noise = operationData(3, 65536);
const none = () => {
  throw new Error('not installed');
};

const zstds: readonly (readonly [string, ZstdCodecs | undefined])[] = [
  ['of the system', nativeZstd(loadKoffi())],
  ['of Node', builtInZstd()],
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
        expect(await codecs.decompress(target.subarray(0, length), again)).toBe(source.length);
        expect(differsAt(again, source)).toBe(-1);
      }),
    );
  });

  test.skipIf(codecs === undefined)('what does not fit, and what is no frame, is -1', async () => {
    if (codecs === undefined) return;
    expect(await codecs.compress(noise, new Uint8Array(65535))).toBe(-1);
    const target = new Uint8Array(text.length);
    const frame = target.subarray(0, await codecs.compress(text, target));
    expect(await codecs.decompress(frame, new Uint8Array(text.length - 1))).toBe(-1);
    // Some tell of it by giving nothing.
    expect(await codecs.decompress(noise, new Uint8Array(65536))).toBeLessThanOrEqual(0);
    expect(await codecs.decompress(frame, new Uint8Array(text.length))).toBe(text.length);
  });
});

describe.each([
  ['of the system', nativeDeflate(loadKoffi())],
  ['of a host', nodeCodecs(loadKoffi).deflateRaw],
  ['of a host without the system', nodeCodecs(none).deflateRaw],
])('deflate %s', (_name, encode) => {
  test.skipIf(encode === undefined)('codes several at a time, from memory that changes meanwhile', async () => {
    if (encode === undefined) return;
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
  const whole = new Uint8Array(text.length);
  expect(await inflateRaw(stream, whole)).toBe(true);
  expect(differsAt(whole, text)).toBe(-1);
  const part = new Uint8Array(100);
  expect(await inflateRaw(stream, part)).toBe(true);
  expect(differsAt(part, text.subarray(0, 100))).toBe(-1);
  expect(await inflateRaw(new Uint8Array([...stream, 1, 2, 3]), whole)).toBe(true);
  expect(await inflateRaw(stream.subarray(0, -4), new Uint8Array(text.length - 20_000))).toBe(true);
  expect(await inflateRaw(stream, new Uint8Array(text.length + 1))).toBe(false);
  expect(await inflateRaw(noise, whole)).toBe(false);
  expect(await inflateRaw(new Uint8Array(0), whole)).toBe(false);
});
