/** Cache modes and discard modes by name (BL-OPEN-25, BL-OPEN-26). */
import type { CacheSettings } from './driver.ts';

/** How the host's cache is used, by qemu-img's names: whether writes wait for the disk, go past the cache, or are never flushed. `off` is `none`. */
export type CacheMode = 'none' | 'off' | 'directsync' | 'writeback' | 'unsafe' | 'writethrough';

const MODES: Readonly<Record<CacheMode, CacheSettings>> = {
  none: { writeBack: true, direct: true, noFlush: false },
  off: { writeBack: true, direct: true, noFlush: false },
  directsync: { writeBack: false, direct: true, noFlush: false },
  writeback: { writeBack: true, direct: false, noFlush: false },
  unsafe: { writeBack: true, direct: false, noFlush: true },
  writethrough: { writeBack: false, direct: false, noFlush: false },
};

/** The settings of a named mode; undefined for a name that is none. */
export function cacheSettings(mode: string): CacheSettings | undefined {
  return Object.hasOwn(MODES, mode) ? MODES[mode as CacheMode] : undefined;
}

/** What becomes of discards: passed on to the storage, or ignored. */
export type DiscardMode = 'ignore' | 'unmap';

/** `off` and `ignore`, `on` and `unmap`; undefined for other names. */
export function discardMode(name: string): DiscardMode | undefined {
  if (name === 'off' || name === 'ignore') return 'ignore';
  if (name === 'on' || name === 'unmap') return 'unmap';
  return undefined;
}
