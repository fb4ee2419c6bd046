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

/** Sets the three names of a node from its options and its children's names (BL-REFRESH-1 to 6). */
export function refreshFilename(node: BlockNode): void {
  const { driver, options } = node;
  const file = node.child('file')?.node;
  const own: Record<string, FullOptions[string]> = {};
  for (const key of driver.strongOptions ?? []) {
    const value = options[key];
    if (value !== undefined) own[key] = value;
  }
  if (driver.kind === 'protocol') {
    node.exactName = driver.exactFilename?.(options) ?? '';
    node.fullOptions = { ...own, driver: driver.name };
  } else {
    const direct = file?.driver.kind === 'protocol' && Object.keys(own).length === 0;
    node.exactName = direct ? file.exactName : '';
    node.fullOptions = file?.fullOptions && { ...own, driver: driver.name, file: file.fullOptions };
  }
  if (node.exactName !== '') node.filename = node.exactName;
  else if (node.fullOptions !== undefined) node.filename = jsonName(node.fullOptions);
}
