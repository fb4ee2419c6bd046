/** Coding of compressed clusters off the event loop, by the best codecs that this machine has. */
import { availableParallelism } from 'node:os';
import type { Host, ZstdCodecs } from '../core/host.ts';
import { Coding } from './coders.ts';
import { CodingPool } from './coding-pool.ts';
import type { Koffi } from './koffi.ts';
import { Slots } from './slots.ts';
import * as builtIn from './zlib-codecs.ts';
import { threadedZstd } from './zstd-thread.ts';

type Codecs = Required<Pick<Host, 'inflateRaw' | 'deflateRaw' | 'zstd' | 'loadZstd'>>;

/** Machines whose pointers and `unsigned long` have 64 bits, lowest byte first, as coders.ts has it. */
const MACHINES = ['x64', 'arm64', 'riscv64', 'loong64'];

/** Codecs of a host; what `koffi` throws means that there are none of the system's. */
export function nodeCodecs(koffi: () => Koffi): Codecs {
  const slots = new Slots(codingThreads());
  let pool: CodingPool | null | undefined;
  const poolFor = (...codings: Coding[]): CodingPool | undefined => {
    if (pool === undefined) pool = systemPool(koffi);
    return pool !== null && codings.every((coding) => pool?.can(coding)) ? pool : undefined;
  };
  let inflate: Codecs['inflateRaw'] | undefined;
  let deflate: Codecs['deflateRaw'] | undefined;
  let zstd: ZstdCodecs | undefined;
  return {
    inflateRaw(sources, targets) {
      inflate ??= inflateBy(poolFor(Coding.inflate)) ?? each(slots, builtIn.inflateRaw);
      return inflate(sources, targets);
    },
    deflateRaw(source, target) {
      deflate ??= encodeBy(poolFor(Coding.deflate), Coding.deflate) ?? limit(slots, builtIn.deflateRaw);
      return deflate(source, target);
    },
    zstd() {
      zstd ??=
        zstdBy(poolFor(Coding.decodeZstd, Coding.encodeZstd)) ?? builtInZstd(slots) ?? threadedZstd(codingThreads());
      return zstd;
    },
    loadZstd: builtIn.loadZstd,
  };
}

/** Null: there are no libraries of the system that could be called. */
function systemPool(load: () => Koffi): CodingPool | null {
  if (process.platform !== 'linux' || !MACHINES.includes(process.arch)) return null;
  try {
    const koffi = load();
    // Only glibc binds libraries deeply.
    koffi.load(null).func('const char *gnu_get_libc_version()');
    return new CodingPool(koffi);
  } catch {
    return null;
  }
}

function inflateBy(pool: CodingPool | undefined): Codecs['inflateRaw'] | undefined {
  return (
    pool &&
    (async (sources, targets) => {
      const lengths = await pool.run(Coding.inflate, sources, targets);
      // Whatever comes after the bytes that are wanted, an error too, does not matter.
      return lengths.map((length, index) => length === targets[index]?.length);
    })
  );
}

function encodeBy(pool: CodingPool | undefined, coding: Coding): Codecs['deflateRaw'] | undefined {
  return pool && (async (source, target) => (await pool.run(coding, [source], [target]))[0] ?? -1);
}

function zstdBy(pool: CodingPool | undefined): ZstdCodecs | undefined {
  const compress = encodeBy(pool, Coding.encodeZstd);
  return pool && compress && { compress, decompress: (...bytes) => pool.run(Coding.decodeZstd, ...bytes) };
}

function builtInZstd(slots: Slots): ZstdCodecs | undefined {
  const codec = builtIn.builtInZstd();
  return codec && { compress: limit(slots, codec.compress), decompress: each(slots, codec.decompress) };
}

type One<T> = (source: Uint8Array, target: Uint8Array) => Promise<T>;

function limit<T>(slots: Slots, code: One<T>): One<T> {
  return (source, target) => slots.run(() => code(source, target));
}

/** Codes many, as `code` does one. */
function each<T>(slots: Slots, code: One<T>) {
  const limited = limit(slots, code);
  return (sources: readonly Uint8Array[], targets: readonly Uint8Array[]) =>
    Promise.all(targets.map((target, index) => limited(sources[index] ?? new Uint8Array(0), target)));
}

/** One more than there are processors, so that none waits for the event loop; and the pool keeps a thread for files. */
function codingThreads(): number {
  const pool = Number(process.env.UV_THREADPOOL_SIZE) || 4;
  return Math.max(1, Math.min(availableParallelism() + 1, pool - 1));
}
