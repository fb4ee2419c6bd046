/** Coding of compressed clusters off the event loop, by the best codecs that this machine has. */
import { availableParallelism } from 'node:os';
import type { Host, ZstdCodecs } from '../core/host.ts';
import type { Koffi } from './koffi.ts';
import { type Encoder, nativeDeflate, nativeInflate, nativeZstd } from './native-codecs.ts';
import * as builtIn from './zlib-codecs.ts';
import { threadedZstd } from './zstd-thread.ts';

type Codecs = Required<Pick<Host, 'inflateRaw' | 'deflateRaw' | 'zstd' | 'loadZstd'>>;

/** Codecs of a host; what `koffi` throws means that there are none of the system's. */
export function nodeCodecs(koffi: () => Koffi): Codecs {
  const slots = new Slots(codingThreads());
  const system = <T>(find: (loaded: Koffi) => T | undefined): T | undefined => {
    try {
      return find(koffi());
    } catch {
      return undefined;
    }
  };
  let inflate: typeof builtIn.inflateRaw | undefined;
  let deflate: Encoder | undefined;
  let zstd: ZstdCodecs | undefined;
  return {
    inflateRaw(source, target) {
      inflate ??= system(nativeInflate) ?? builtIn.inflateRaw;
      const decode = inflate;
      return slots.run(() => decode(source, target));
    },
    deflateRaw(source, target) {
      deflate ??= system(nativeDeflate) ?? builtIn.deflateRaw;
      const encode = deflate;
      return slots.run(() => encode(source, target));
    },
    zstd() {
      zstd ??= limited(system(nativeZstd) ?? builtIn.builtInZstd(), slots) ?? threadedZstd(codingThreads());
      return zstd;
    },
    loadZstd: builtIn.loadZstd,
  };
}

function limited(codecs: ZstdCodecs | undefined, slots: Slots): ZstdCodecs | undefined {
  return (
    codecs && {
      compress: (source, target) => slots.run(() => codecs.compress(source, target)),
      decompress: (frame, target) => slots.run(() => codecs.decompress(frame, target)),
    }
  );
}

/** One more than there are processors, so that none waits for the event loop; and the pool keeps a thread for files. */
function codingThreads(): number {
  const pool = Number(process.env.UV_THREADPOOL_SIZE) || 4;
  return Math.max(1, Math.min(availableParallelism() + 1, pool - 1));
}

/** At most so many calls at a time; others wait, first come, first served. */
class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}
