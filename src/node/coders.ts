/**
 * The system's codecs for one cluster at a time, called by address. Functions here use nothing from outside of themselves but
 * what they are given: their texts are also the program of coding threads (coding-thread.ts).
 */
import type { Koffi } from './koffi.ts';

/** What can be done with a cluster: raw deflate and zstd (Q-MAP-6), both ways. */
export const Coding = { inflate: 0, deflate: 1, decodeZstd: 2, encodeZstd: 3 } as const;
export type Coding = (typeof Coding)[keyof typeof Coding];

/** Codes bytes at one address into room at another; the bytes that it fills, or -1: it does not fit, or is bad. */
export type Coder = (source: number, length: number, target: number, room: number) => number;

/**
 * A coder, with memory of its own for one call at a time. Throws where there is no library for it. The system's libraries are
 * the very encoders that QEMU's programs use, so that images become as small; they are bound deeply, as Node has another zlib
 * in it, whose functions they would call for their own. That one inflates in two thirds of the time.
 */
export function bindCoder(koffi: Koffi, coding: Coding): Coder {
  const deep = (name: string) => koffi.load(name, { deep: true });
  const zlib = (from: ReturnType<Koffi['load']>, name: string, parameters: string, settings: readonly number[]) => {
    const begin = from.func(`int ${name}Init2_(uintptr_t stream, ${parameters}, const char *version, int size)`);
    const reset = from.func(`int ${name}Reset(uintptr_t stream)`);
    const code = from.func(`int ${name}(uintptr_t stream, int flush)`);
    // z_stream where pointers and longs have 64 bits: next_in at 0, avail_in at 8, next_out at 24, avail_out at 32, total_out at 40.
    const stream = new Uint32Array(new ArrayBuffer(112));
    const place = Number(koffi.address(stream));
    if (begin(place, ...settings, '1.2.11', stream.byteLength) !== 0) throw new RangeError(`${name}: no memory`);
    return (source: number, length: number, target: number, room: number) => {
      reset(place);
      stream[0] = source % 2 ** 32;
      stream[1] = source / 2 ** 32;
      stream[2] = length;
      stream[6] = target % 2 ** 32;
      stream[7] = target / 2 ** 32;
      stream[8] = room;
      // Z_FINISH, and Z_STREAM_END: what is inflated need not end where the room does.
      const ended = code(place, 4) === 1;
      return ended || name === 'inflate' ? (stream[10] ?? 0) : -1;
    };
  };
  const zstd = (state: string, name: string, level?: number) => {
    const libzstd = deep('libzstd.so.1');
    const context = libzstd.func(`uintptr_t ZSTD_create${state}()`)();
    if (Number(context) === 0) throw new RangeError(`${name}: no memory`);
    const places = 'uintptr_t context, uintptr_t target, size_t room, uintptr_t source, size_t length';
    const code = libzstd.func(`size_t ${name}(${places}${level === undefined ? '' : ', int level'})`);
    return (source: number, length: number, target: number, room: number) => {
      const result = Number(
        level === undefined
          ? code(context, target, room, source, length)
          : code(context, target, room, source, length, level),
      );
      // Error numbers are lengths that nothing has.
      return result > room ? -1 : result;
    };
  };
  switch (coding) {
    case 0:
      // All the window that deflate has. Newer Nodes may leave zlib out.
      try {
        return zlib(koffi.load(null), 'inflate', 'int bits', [-15]);
      } catch {
        return zlib(deep('libz.so.1'), 'inflate', 'int bits', [-15]);
      }
    case 1:
      // The default level, a window of 2^12 bytes, most memory.
      return zlib(
        deep('libz.so.1'),
        'deflate',
        'int level, int method, int bits, int memory, int strategy',
        [-1, 8, -12, 9, 0],
      );
    case 2:
      return zstd('DCtx', 'ZSTD_decompressDCtx');
    case 3:
      return zstd('CCtx', 'ZSTD_compressCCtx', 3);
  }
}
