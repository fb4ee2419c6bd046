/** What qemu-io prints of requests: reports, sizes, times and dumps (T-FMT-2, T-REP-1 to T-REP-4). */

export type Verb = 'read' | 'wrote' | 'discard';

export interface Transfer {
  readonly verb: Verb;
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
  readonly milliseconds: number;
  /** One line for programs. */
  readonly machine: boolean;
}

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** `1.500 KiB` (T-FMT-2). `bytes` may be a fraction. */
export function ioSize(bytes: number): string {
  let unit = 0;
  while (unit < UNITS.length - 1 && bytes >= 1024 ** (unit + 1)) unit++;
  const text = fixed(bytes / 1024 ** unit, unit === 0 ? 6 : 3);
  const zeros = text.indexOf('.000');
  return `${zeros < 0 ? text : text.slice(0, zeros)} ${UNITS[unit]}`;
}

/** C's `%.Nf`: as `toFixed`, but what lies halfway goes to the even digit. */
function fixed(value: number, digits: number): string {
  if (!Number.isFinite(value)) return 'inf';
  const rounded = value.toFixed(digits);
  // So many digits tell any such number exactly.
  const exact = value.toFixed(100);
  const cut = exact.length - 100 + digits;
  const half = /^50*$/.test(exact.slice(cut)) && /[02468]/.test(exact[cut - 1] ?? '');
  return half ? exact.slice(0, cut) : rounded;
}

/** `0:00:01.90`. */
function clock(seconds: number): string {
  const hundredths = Math.floor(seconds * 100);
  const two = (value: number) => String(value).padStart(2, '0');
  const whole = Math.floor(hundredths / 100);
  const minutes = Math.floor(whole / 60);
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}.${two(hundredths % 100)}`;
}

/** `00.02 sec`, and from a second on a clock (T-REP-1). */
function duration(seconds: number): string {
  return seconds < 1 ? `${fixed(seconds, 2).padStart(5, '0')} sec` : clock(seconds);
}

/** The lines about a request that succeeded. */
export function reportText({ verb, offset, length, milliseconds, machine }: Transfer): string {
  // Clocks tell whole microseconds; in none of them nothing can have happened.
  const seconds = Math.max(0, Math.round(milliseconds * 1000)) / 1e6;
  const [bytesRate, opsRate] = [seconds === 0 && length === 0 ? 0 : length / seconds, 1 / seconds];
  if (machine) return `${length},1,${clock(seconds)},${fixed(bytesRate, 3)},${fixed(opsRate, 3)}\n`;
  return (
    `${verb} ${length}/${length} bytes at offset ${offset}\n` +
    `${ioSize(length)}, 1 ops; ${duration(seconds)} (${ioSize(bytesRate)}/sec and ${fixed(opsRate, 4)} ops/sec)\n`
  );
}

const ROW = 16;

/** The rows of a dump, each with its line end; `offset` is that of the first byte (T-REP-4). */
export function* dumpRows(bytes: Uint8Array, offset: number): Generator<string> {
  for (let start = 0; start < bytes.length; start += ROW) {
    const row = bytes.subarray(start, start + ROW);
    const place = (offset + start).toString(16).padStart(8, '0');
    let hex = '';
    let text = '';
    for (const byte of row) {
      hex += `${byte.toString(16).padStart(2, '0')} `;
      const character = String.fromCharCode(byte);
      text += /[A-Za-z0-9]/.test(character) ? character : '.';
    }
    yield `${place}:  ${hex} ${text}\n`;
  }
}
