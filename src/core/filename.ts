/** File names: prefixes, `json:` names, and the names a node shows (BL-NAME, BL-REFRESH). POSIX rules. */
import { addContext, BlockError } from './errors.ts';
import { type JsonValue, parseJson } from './json.ts';
import { hashOrder } from './key-order.ts';
import type { BlockNode, FullOptions } from './node.ts';
import { flattenOptions, type NestedOptions, type OptionTree } from './options.ts';

/** The text before the first colon when that comes before any slash (BL-NAME-1). */
export function protocolPrefix(name: string): string | undefined {
  const match = /^([^:/]*):/.exec(name);
  return match?.[1];
}

/** Strips a driver's own prefix (BL-NAME-9): a rest that looks prefixed gets `./` in front. */
export function stripPrefix(name: string, driver: string): string {
  if (!name.startsWith(`${driver}:`)) return name;
  const rest = name.slice(driver.length + 1);
  return protocolPrefix(rest) === undefined ? rest : `./${rest}`;
}

/** The options of a `json:` name (BL-NAME-8); undefined for other names. Throws BlockError EINVAL. */
export function jsonNameOptions(name: string): OptionTree | undefined {
  if (!name.startsWith('json:')) return undefined;
  const parsed = parseNameJson(name.slice('json:'.length));
  if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed)) {
    throw new BlockError('EINVAL', 'Invalid JSON object given');
  }
  return flattenOptions(parsed as NestedOptions);
}

function parseNameJson(text: string): JsonValue {
  try {
    return parseJson(text);
  } catch (error) {
    throw addContext('Could not parse the JSON options', error);
  }
}

/** `json:{"driver": "raw", "file": {…}}` in the order other programs print it (T-FMT-4). */
export function jsonName(options: FullOptions): string {
  return `json:${jsonText(options)}`;
}

function jsonText(value: FullOptions[string]): string {
  if (value === null || typeof value !== 'object') return asciiJson(value);
  const keys = hashOrder(Object.keys(value));
  return `{${keys.map((key) => `${asciiJson(key)}: ${jsonText(value[key] ?? null)}`).join(', ')}}`;
}

/** JSON of a scalar with everything outside ASCII escaped (T-FMT-3). */
function asciiJson(value: string | number | boolean | null): string {
  return JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`,
  );
}

/**
 * Sets the three names of a node from its options and its children's names, whose own are set first (BL-REFRESH-1 to 6).
 * For a node that has a driver.
 */
export function refreshFilename(node: BlockNode): void {
  for (const { node: child } of node.children) refreshFilename(child);
  const { driver, filtered } = node;
  if (node.implicit && filtered !== undefined) {
    const { exactName, fullOptions, filename } = filtered.node;
    Object.assign(node, { exactName, fullOptions, filename });
    return;
  }
  const strong = strongOptions(node);
  const backing = overriddenBacking(node);
  node.fullOptions = fullOptions(node, strong, backing);
  if (driver.kind === 'protocol') node.exactName = driver.exactFilename?.(node.options) ?? '';
  else if (driver.kind === 'filter') {
    const childName = (name: string) => node.child(name)?.node.exactName ?? '';
    node.exactName = driver.exactFilename?.(node.options, childName) ?? '';
  } else {
    const primary = node.primary?.node;
    const plain = primary?.driver.kind !== 'format' && Object.keys(strong).length === 0 && backing === undefined;
    node.exactName = (plain && primary?.exactName) || '';
  }
  if (node.exactName !== '') node.filename = node.exactName;
  else if (node.fullOptions !== undefined) node.filename = jsonName(node.fullOptions);
}

/** Options that decide what data is seen, as they were given (BL-REFRESH-6). */
function strongOptions({ driver, options }: BlockNode): Record<string, FullOptions[string]> {
  const own: Record<string, FullOptions[string]> = {};
  const strong = driver.strongOptions ?? [];
  for (const [key, value] of Object.entries(options)) {
    if (strong.some((name) => key === name || key.startsWith(`${name}.`))) own[key] = value;
  }
  return own;
}

/** A backing child that is not the one the image names, or null where that was suppressed; undefined: as it names it. */
function overriddenBacking(node: BlockNode): BlockNode | null | undefined {
  if (node.settings.noIO) return undefined;
  const { backing, automaticBackingName } = node;
  if (backing !== undefined) return backing.node.filename === automaticBackingName ? undefined : backing.node;
  return automaticBackingName === '' ? undefined : null;
}

/** Undefined where some child's are not known. */
function fullOptions(
  node: BlockNode,
  strong: Record<string, FullOptions[string]>,
  backing: BlockNode | null | undefined,
): FullOptions | undefined {
  const full: Record<string, FullOptions[string]> = { ...strong, driver: node.driver.name };
  for (const { name, role, node: child } of node.children) {
    if (role === 'cow' && backing === undefined) continue;
    if (child.fullOptions === undefined) return undefined;
    full[name] = child.fullOptions;
  }
  if (backing === null) full.backing = null;
  return full;
}
