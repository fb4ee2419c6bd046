/** Arguments that several commands take, checked in qemu-img's words. */
import { type CacheMode, cacheSettings } from '../../core/cache.ts';
import type { GivenOptions } from '../command.ts';
import { Failure } from '../failure.ts';

export type OutputForm = 'human' | 'json';

/** T-GEN-17. */
export function outputForm(text: string | undefined): OutputForm {
  if (text === undefined || text === 'human') return 'human';
  if (text === 'json') return 'json';
  throw new Failure('--output must be used with human or json as argument.');
}

/** A cache mode's name (T-GEN-14); `what` is `cache` or `source cache`. */
export function cacheMode(what: string, text = 'writeback'): CacheMode {
  if (cacheSettings(text) === undefined) throw new Failure(`Invalid ${what} option: ${text}`);
  return text as CacheMode;
}

/** T-GEN-8. */
export function checkFormatOrOptions(given: GivenOptions, ...formats: readonly string[]): void {
  if (given.has('image-opts') && formats.some((key) => given.has(key))) {
    throw new Failure('--image-opts and --format are mutually exclusive');
  }
}

/** `-l` of convert and measure: a name, or keys and values of which each is checked (T-CONV-5). */
export function checkSnapshotArgument(text: string, warn: (message: string, hint: string) => void): void {
  if (!text.startsWith('snapshot.')) return;
  for (const item of text.replaceAll(',,', '\0').split(',')) {
    let [key = '', value] = item.split('=', 2);
    if (value === undefined) {
      const full = key.startsWith('no') ? `${key.slice(2)}=off` : `${key}=on`;
      warn(`short-form boolean option '${key}' deprecated`, `Please use ${full} instead`);
      key = full.split('=', 1)[0] ?? '';
    }
    if (key === 'snapshot.id' || key === 'snapshot.name') continue;
    throw new Failure(`Invalid parameter '${key}'`, { continuation: `Failed in parsing snapshot param '${text}'` });
  }
}
