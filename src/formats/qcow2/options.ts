/** Runtime options (Q-OPT) and what follows from them for an image. */
import { isPowerOfTwo } from '../../bytes/align.ts';
import type { DiscardMode } from '../../core/cache.ts';
import { BlockError } from '../../core/errors.ts';
import { type OptionSchema, option, parseOptions } from '../../core/options.ts';
import { Compatible, type Qcow2Header } from './header.ts';
import { type Layout, l1EntriesFor } from './layout.ts';
import { OVERLAP_CLASSES, OVERLAP_TEMPLATES } from './overlap.ts';

type OverlapName = (typeof OVERLAP_CLASSES)[number]['name'];
type OverlapOptions = { readonly [K in OverlapName as `overlap-check.${K}`]: boolean | undefined };

export interface Qcow2Options extends OverlapOptions {
  readonly 'lazy-refcounts': boolean | undefined;
  readonly 'pass-discard-request': boolean | undefined;
  readonly 'pass-discard-snapshot': boolean;
  readonly 'pass-discard-other': boolean;
  readonly 'discard-no-unref': boolean;
  readonly 'overlap-check': string | undefined;
  readonly 'overlap-check.template': string | undefined;
  readonly 'cache-size': number | undefined;
  readonly 'l2-cache-size': number | undefined;
  readonly 'l2-cache-entry-size': number | undefined;
  readonly 'refcount-cache-size': number | undefined;
  readonly 'cache-clean-interval': number;
  readonly 'encrypt.format': string | undefined;
  readonly 'encrypt.key-secret': string | undefined;
}

const unset = { fallback: undefined, reopen: true } as const;

const overlapOptions = Object.fromEntries(
  OVERLAP_CLASSES.map(({ name, text }) => [
    `overlap-check.${name}`,
    option.boolean<boolean | undefined>({ help: `Check for writes into the ${text}`, ...unset }),
  ]),
) as unknown as OptionSchema<OverlapOptions>;

export const qcow2Options: OptionSchema<Qcow2Options> = {
  'lazy-refcounts': option.boolean<boolean | undefined>({ help: 'Postpone refcount updates', ...unset }),
  'pass-discard-request': option.boolean<boolean | undefined>({
    help: 'Pass guest discard requests to the layer below; by default as `discard` is',
    ...unset,
  }),
  'pass-discard-snapshot': option.boolean({
    help: 'Generate discard requests when snapshot related space is freed',
    fallback: true,
    reopen: true,
  }),
  'pass-discard-other': option.boolean({
    help: 'Generate discard requests when other clusters are freed',
    fallback: false,
    reopen: true,
  }),
  'discard-no-unref': option.boolean({ help: 'Do not unreference discarded clusters', fallback: false, reopen: true }),
  'overlap-check': option.text<string | undefined>({
    help: 'Selects which overlap checks to perform from a range of templates (none, constant, cached, all)',
    ...unset,
  }),
  'overlap-check.template': option.text<string | undefined>({ help: 'The same', ...unset }),
  ...overlapOptions,
  'cache-size': option.size<number | undefined>({
    help: 'Maximum combined metadata (L2 tables and refcount blocks) cache size',
    ...unset,
  }),
  'l2-cache-size': option.size<number | undefined>({ help: 'Maximum L2 table cache size', ...unset }),
  'l2-cache-entry-size': option.size<number | undefined>({ help: 'Size of each entry in the L2 cache', ...unset }),
  'refcount-cache-size': option.size<number | undefined>({ help: 'Maximum refcount block cache size', ...unset }),
  'cache-clean-interval': option.number({
    help: 'Clean unused cache entries after this time (in seconds)',
    fallback: 600,
    reopen: true,
  }),
  'encrypt.format': option.text<string | undefined>({
    help: 'Encrypt the image, format choices: aes, luks',
    fallback: undefined,
  }),
  'encrypt.key-secret': option.text<string | undefined>({
    help: 'ID of secret providing qcow AES key or LUKS passphrase',
    fallback: undefined,
  }),
};

/** Options checked against an image. */
export interface Settings {
  readonly lazyRefcounts: boolean;
  readonly passDiscard: { readonly request: boolean; readonly snapshot: boolean; readonly other: boolean };
  readonly discardNoUnref: boolean;
  /** Bits of classes that writes are checked against (Q-CORR-3). */
  readonly overlapMask: number;
  readonly caches: CacheSizes;
  /** Seconds after which what is cached and not used is dropped; 0: never. */
  readonly cacheCleanInterval: number;
}

/** Numbers of entries, and bytes of one of the L2 cache. */
export interface CacheSizes {
  readonly l2Entries: number;
  readonly l2EntryBytes: number;
  readonly refcountEntries: number;
}

/** `discard`: of the node. Throws BlockError EINVAL for options that do not fit the image or one another. */
export function settingsFor(
  options: Qcow2Options,
  discard: DiscardMode,
  header: Qcow2Header,
  layout: Layout,
): Settings {
  const caches = cacheSizes(options, layout, Number(header.size));
  if (options['cache-clean-interval'] > 2 ** 32 - 1) throw new BlockError('EINVAL', 'Cache clean interval too big');
  const lazyRefcounts = options['lazy-refcounts'] ?? (header.compatible & Compatible.lazyRefcounts) !== 0n;
  if (lazyRefcounts && header.version < 3) {
    throw new BlockError('EINVAL', 'Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level');
  }
  if (options['discard-no-unref'] && header.version < 3) {
    throw new BlockError('EINVAL', 'discard-no-unref is only supported since qcow2 version 3');
  }
  return {
    lazyRefcounts,
    passDiscard: {
      request: options['pass-discard-request'] ?? discard === 'unmap',
      snapshot: options['pass-discard-snapshot'],
      other: options['pass-discard-other'],
    },
    discardNoUnref: options['discard-no-unref'],
    overlapMask: overlapMask(options),
    caches,
    cacheCleanInterval: options['cache-clean-interval'],
  };
}

/** What a new image is made with. */
export function defaultSettings(header: Qcow2Header, layout: Layout): Settings {
  return settingsFor(parseOptions(qcow2Options, {}).values, 'unmap', header, layout);
}

function overlapMask(options: Qcow2Options): number {
  const { 'overlap-check': plain, 'overlap-check.template': template } = options;
  if (plain !== undefined && template !== undefined && plain !== template) {
    throw new BlockError(
      'EINVAL',
      `Conflicting values for qcow2 options 'overlap-check' ('${plain}') and 'overlap-check.template' ('${template}')`,
    );
  }
  const name = plain ?? template ?? 'cached';
  let mask = Object.hasOwn(OVERLAP_TEMPLATES, name) ? OVERLAP_TEMPLATES[name] : undefined;
  if (mask === undefined) {
    throw new BlockError(
      'EINVAL',
      `Unsupported value '${name}' for qcow2 option 'overlap-check'. Allowed are any of the following: none, constant, cached, all`,
    );
  }
  for (const { name: each, bit } of OVERLAP_CLASSES) {
    const given = options[`overlap-check.${each}`];
    if (given === true) mask |= bit;
    else if (given === false) mask &= ~bit;
  }
  return mask;
}

const L2_CACHE_DEFAULT = 32 << 20;
const L2_ENTRIES_MIN = 2;
const REFCOUNT_ENTRIES_MIN = 4;
const L2_ENTRY_DEFAULT = 4096;

/** Q-OPT-2. */
function cacheSizes(options: Qcow2Options, layout: Layout, diskSize: number): CacheSizes {
  const { clusterSize } = layout;
  const combined = options['cache-size'];
  const givenL2 = options['l2-cache-size'];
  const givenRefcount = options['refcount-cache-size'];
  const needed = Math.max(1, l1EntriesFor(layout, diskSize)) * clusterSize;
  const refcountMin = REFCOUNT_ENTRIES_MIN * clusterSize;
  let l2 = givenL2 ?? L2_CACHE_DEFAULT;
  let refcount = givenRefcount ?? refcountMin;
  if (combined !== undefined) {
    if (givenL2 !== undefined && givenRefcount !== undefined) {
      throw new BlockError(
        'EINVAL',
        'cache-size, l2-cache-size and refcount-cache-size may not be set at the same time',
      );
    }
    if ((givenL2 ?? 0) > combined) throw new BlockError('EINVAL', 'l2-cache-size may not exceed cache-size');
    if ((givenRefcount ?? 0) > combined) {
      throw new BlockError('EINVAL', 'refcount-cache-size may not exceed cache-size');
    }
    if (givenL2 !== undefined) refcount = combined - givenL2;
    else if (givenRefcount !== undefined) l2 = combined - givenRefcount;
    else {
      l2 = combined >= needed + refcountMin ? needed : Math.max(0, combined - refcountMin);
      refcount = combined - l2;
    }
  }
  const fits = l2 >= needed;
  l2 = Math.min(l2, needed);
  const l2EntryBytes = options['l2-cache-entry-size'] ?? (fits ? clusterSize : Math.min(clusterSize, L2_ENTRY_DEFAULT));
  if (l2EntryBytes < 512 || l2EntryBytes > clusterSize || !isPowerOfTwo(l2EntryBytes)) {
    throw new BlockError(
      'EINVAL',
      `L2 cache entry size must be a power of two between 512 and the cluster size (${clusterSize})`,
    );
  }
  return {
    l2EntryBytes,
    l2Entries: Math.max(L2_ENTRIES_MIN, Math.floor(l2 / l2EntryBytes)),
    refcountEntries: Math.max(REFCOUNT_ENTRIES_MIN, Math.floor(refcount / clusterSize)),
  };
}
