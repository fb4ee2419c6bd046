/** Guessing a format from a file's first bytes (BL-OPEN-13 to 15). Sees bytes only, so it can open nothing. */
import type { DriverSpec, FormatSpec } from './driver.ts';

/** How many bytes probing looks at; a shorter file is padded with zeroes. */
export const PROBE_BYTES = 512;

/** The format with the highest score above 0; `drivers` newest first, which decides ties (BL-DRV-1). */
export function probeFormat(
  drivers: readonly DriverSpec[],
  head: Uint8Array,
  filename: string,
): FormatSpec<never, never> | undefined {
  let best: FormatSpec<never, never> | undefined;
  let bestScore = 0;
  for (const driver of drivers) {
    if (driver.kind !== 'format') continue;
    const score = driver.probe?.(head, filename) ?? 0;
    if (score > bestScore) {
      best = driver;
      bestScore = score;
    }
  }
  return best;
}
