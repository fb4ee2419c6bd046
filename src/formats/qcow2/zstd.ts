/** zstd frames (RFC 8878): how long each is, and decoding them in bounded memory (Q-MAP-6). */
import { viewOf } from '../../bytes/big-endian.ts';
import type { Host, ZstdCodec } from '../../core/host.ts';

const FRAME_MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
/** The largest window that is decoded; encoders of clusters, at most 2 MiB long, have no use for larger ones. */
const WINDOW_MAX = 8 << 20;

interface Frame {
  /** Bytes of the frame. */
  readonly length: number;
  readonly skippable: boolean;
}

/** The frame at the beginning of `bytes`; undefined: there is none that is whole, or it needs too much memory. */
function frameAt(bytes: Uint8Array): Frame | undefined {
  if (bytes.length < 6) return undefined;
  const view = viewOf(bytes);
  const magic = view.getUint32(0, true);
  if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC) {
    if (bytes.length < 8) return undefined;
    const length = 8 + view.getUint32(4, true);
    return length <= bytes.length ? { length, skippable: true } : undefined;
  }
  if (magic !== FRAME_MAGIC) return undefined;
  const descriptor = view.getUint8(4);
  const single = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >>> 6;
  const sizeBytes = sizeFlag === 0 ? (single ? 1 : 0) : 2 ** sizeFlag;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  let at = 5 + (single ? 0 : 1) + dictionaryBytes + sizeBytes;
  if (at > bytes.length) return undefined;
  if (windowOf(view, single, at - sizeBytes, sizeBytes) > WINDOW_MAX) return undefined;
  for (let last = false; !last; ) {
    if (at + 3 > bytes.length) return undefined;
    const header = view.getUint8(at) | (view.getUint8(at + 1) << 8) | (view.getUint8(at + 2) << 16);
    last = (header & 1) !== 0;
    const type = (header >>> 1) & 3;
    if (type === 3) return undefined;
    at += 3 + (type === 1 ? 1 : header >>> 3);
  }
  if ((descriptor & 4) !== 0) at += 4;
  return at <= bytes.length ? { length: at, skippable: false } : undefined;
}

/** Bytes that a decoder keeps; a frame without a window of its own keeps all of its content. */
function windowOf(view: DataView, single: boolean, sizeAt: number, sizeBytes: number): number {
  if (!single) {
    const descriptor = view.getUint8(5);
    const base = 2 ** (10 + (descriptor >>> 3));
    return base + (base / 8) * (descriptor & 7);
  }
  switch (sizeBytes) {
    case 1:
      return view.getUint8(sizeAt);
    case 2:
      return view.getUint16(sizeAt, true) + 256;
    case 4:
      return view.getUint32(sizeAt, true);
    default:
      return Number(view.getBigUint64(sizeAt, true));
  }
}

let loading: Promise<ZstdCodec> | undefined;

/** The codec, loaded when first needed. */
function zstdCodec(host: Host): Promise<ZstdCodec> {
  loading ??= load(host);
  return loading;
}

async function load({ loadZstd }: Host): Promise<ZstdCodec> {
  const { Zstd } = loadZstd === undefined ? await import('@hpcc-js/wasm-zstd') : loadZstd();
  return Zstd.load();
}

/** One frame in `target`; the bytes it takes, or -1: it does not fit. */
export async function encodeZstd(host: Host, source: Uint8Array, target: Uint8Array): Promise<number> {
  const threads = host.zstd?.();
  if (threads !== undefined) return threads.compress(source, target);
  const frame = (await zstdCodec(host)).compress(source);
  if (frame.length > target.length) return -1;
  target.set(frame);
  return frame.length;
}

/**
 * Fills each target from its own source, one or more whole frames; what follows is ignored. False: a bad or incomplete frame,
 * or frames that hold fewer bytes, or more.
 */
export async function decodeZstd(
  host: Host,
  sources: readonly Uint8Array[],
  targets: readonly Uint8Array[],
): Promise<readonly boolean[]> {
  const good = targets.map(() => true);
  let left = targets.map((target, index) => ({ index, source: sources[index] ?? NOTHING, target }));
  while (left.length > 0) {
    const ready: (typeof left)[number][] = [];
    const frames: Uint8Array[] = [];
    for (const part of left) {
      const rest = afterSkippable(part.source);
      const length = rest && frameAt(rest)?.length;
      if (rest === undefined || length === undefined) good[part.index] = false;
      else {
        frames.push(rest.subarray(0, length));
        ready.push({ ...part, source: rest.subarray(length) });
      }
    }
    const lengths = await decodeFrames(
      host,
      frames,
      ready.map(({ target }) => target),
    );
    left = [];
    for (const [i, { index, source, target }] of ready.entries()) {
      const length = lengths[i] ?? -1;
      if (length < 0) good[index] = false;
      else if (length < target.length) left.push({ index, source, target: target.subarray(length) });
    }
  }
  return good;
}

const NOTHING = new Uint8Array(0);

/** Undefined: what comes is no whole frame. */
function afterSkippable(source: Uint8Array): Uint8Array | undefined {
  let rest = source;
  for (;;) {
    const frame = frameAt(rest);
    if (frame === undefined || !frame.skippable) return frame && rest;
    rest = rest.subarray(frame.length);
  }
}

/** The bytes of each whole frame; -1: it is bad, or holds more than its target has room for. */
async function decodeFrames(
  host: Host,
  frames: readonly Uint8Array[],
  targets: readonly Uint8Array[],
): Promise<readonly number[]> {
  const threads = host.zstd?.();
  if (threads !== undefined) return threads.decompress(frames, targets);
  const codec = await zstdCodec(host);
  return frames.map((frame, index) => decodeFrame(codec, frame, targets[index] ?? NOTHING));
}

function decodeFrame(codec: ZstdCodec, frame: Uint8Array, target: Uint8Array): number {
  try {
    codec.reset();
    // One byte more would show a frame that does not end where it must.
    const bytes = codec.decompressChunk(frame, target.length + 1);
    if (bytes.length > target.length) return -1;
    target.set(bytes);
    return bytes.length;
  } catch {
    return -1;
  }
}
