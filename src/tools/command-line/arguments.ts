/** Arguments that several commands take, checked in qemu-img's words. */
import { type CacheMode, cacheSettings } from '../../core/cache.ts';
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

export type Warning = (message: string, hint: string) => void;

/**
 * `a=b,c`: a literal comma in a value is doubled; a name alone is `on`, which is warned of, or with an implied key, if it
 * comes first, that key's value.
 */
export function keyValues(text: string, impliedKey: string | undefined, warn: Warning): [string, string][] {
  const found: [string, string][] = [];
  for (let at = 0; at < text.length; ) {
    const name = /^[^=,]*/.exec(text.slice(at))?.[0] ?? '';
    const isValue = at === 0 && impliedKey !== undefined && text[name.length] !== '=';
    const start = isValue ? 0 : at + name.length + 1;
    if (isValue || text[at + name.length] === '=') {
      const value = /^(?:[^,]|,,)*/.exec(text.slice(start))?.[0] ?? '';
      found.push([isValue ? impliedKey : name, value.replaceAll(',,', ',')]);
      at = start + value.length + 1;
    } else {
      const [key, meaning] = name.startsWith('no') ? [name.slice(2), 'off'] : [name, 'on'];
      warn(`short-form boolean option '${name}' deprecated`, `Please use ${key}=${meaning} instead`);
      found.push([key, meaning]);
      at = start;
    }
  }
  return found;
}
