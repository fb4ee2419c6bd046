/** Options that every node has, whatever its driver (BL-OPEN-4), and what children take on from parents (BL-OPEN-27). */
import { cacheSettings, type DiscardMode, discardMode } from './cache.ts';
import type { OpenOptions } from './disk.ts';
import { BlockError } from './errors.ts';
import type { NodeSettings } from './node.ts';
import { type OptionTree, type OptionValue, parseBoolOption } from './options.ts';
import type { ChildRole } from './permissions.ts';

const LAYER_KEYS = [
  'driver',
  'node-name',
  'read-only',
  'auto-read-only',
  'force-share',
  'cache.direct',
  'cache.no-flush',
  'discard',
  'detect-zeroes',
] as const;
export type LayerOptions = { [K in (typeof LAYER_KEYS)[number]]?: OptionValue };

export function takeLayerOptions(tree: OptionTree): { layer: LayerOptions; rest: OptionTree } {
  const layer: LayerOptions = {};
  const rest: Record<string, OptionValue> = { ...tree };
  for (const key of LAYER_KEYS) {
    const value = rest[key];
    if (value !== undefined) layer[key] = value;
    delete rest[key];
  }
  return { layer, rest };
}

/** What a caller's flags ask of the top node; throws BlockError EINVAL for an unknown cache mode. */
export function settingsFromFlags(options: OpenOptions): NodeSettings {
  const cache = cacheSettings(options.cache ?? 'writeback');
  if (cache === undefined) throw new BlockError('EINVAL', `Invalid cache option: ${options.cache}`);
  return {
    readOnly: options.writable !== true,
    autoReadOnly: false,
    forceShare: options.forceShare === true,
    noIO: options.noIO === true,
    checkOnly: options.checkOnly === true,
    salvage: options.salvage === true,
    cache,
    discard: options.discard ?? 'unmap',
    detectZeroes: options.detectZeroes ?? 'off',
  };
}

/** What a child in `role` has, unless its own options say otherwise (BL-OPEN-27, today). */
export function inheritedSettings(parent: NodeSettings, role: ChildRole): NodeSettings {
  const cow = role === 'cow';
  const bearsMetadata = role === 'image' || role === 'metadata';
  return {
    readOnly: cow || parent.readOnly,
    autoReadOnly: !cow && parent.autoReadOnly,
    forceShare: parent.forceShare,
    noIO: !bearsMetadata && parent.noIO,
    checkOnly: role === 'filtered' && parent.checkOnly,
    salvage: (cow || role === 'filtered') && parent.salvage,
    cache: { ...parent.cache, writeBack: true },
    discard: 'unmap',
    detectZeroes: 'off',
  };
}

/** Whether a child is opened below the format level, unless its driver says otherwise (BL-OPEN-27, today). */
export function childProtocolLevel(role: ChildRole, parentIsFormat: boolean): boolean {
  if (role === 'cow') return false;
  return role !== 'data' || parentIsFormat;
}

/** Given options over what is there otherwise (BL-OPEN-4). Throws BlockError EINVAL for values that make no sense. */
export function layerSettings(layer: LayerOptions, base: NodeSettings): NodeSettings {
  const flag = (key: keyof LayerOptions, fallback: boolean) => {
    const value = layer[key];
    return value === undefined || value === null ? fallback : parseBoolOption(value, key);
  };
  const settings: NodeSettings = {
    ...base,
    readOnly: flag('read-only', base.readOnly),
    autoReadOnly: flag('auto-read-only', base.autoReadOnly),
    forceShare: flag('force-share', base.forceShare),
    cache: {
      writeBack: base.cache.writeBack,
      direct: flag('cache.direct', base.cache.direct),
      noFlush: flag('cache.no-flush', base.cache.noFlush),
    },
    discard: discardOf(layer.discard, base.discard),
    detectZeroes: detectZeroesOf(layer['detect-zeroes'], base.detectZeroes),
  };
  if (settings.forceShare && !settings.readOnly) {
    throw new BlockError('EINVAL', 'force-share=on can only be used with read-only images');
  }
  if (settings.detectZeroes === 'unmap' && settings.discard !== 'unmap') {
    throw new BlockError(
      'EINVAL',
      'setting detect-zeroes to unmap is not allowed without setting discard operation to unmap',
    );
  }
  return settings;
}

function discardOf(value: OptionValue | undefined, fallback: DiscardMode): DiscardMode {
  if (value === undefined) return fallback;
  const mode = discardMode(String(value));
  if (mode === undefined) throw new BlockError('EINVAL', 'Invalid discard option');
  return mode;
}

function detectZeroesOf(value: OptionValue | undefined, fallback: 'off' | 'on' | 'unmap') {
  if (value === undefined) return fallback;
  if (value === 'off' || value === 'on' || value === 'unmap') return value;
  throw new BlockError('EINVAL', `invalid parameter value: ${value}`);
}
