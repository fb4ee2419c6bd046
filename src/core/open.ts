/** From a name or an option tree to opened nodes (BL-OPEN). */
import { cacheSettings, type DiscardMode, discardMode } from './cache.ts';
import type { OpenOptions } from './disk.ts';
import type { Child, DriverNode, DriverSpec, FormatSpec, OpenContext, ProtocolSpec } from './driver.ts';
import { BlockError, errorText, withErrno } from './errors.ts';
import { jsonNameOptions, protocolPrefix, refreshFilename } from './filename.ts';
import type { Graph } from './graph.ts';
import { BlockNode, type NodeSettings } from './node.ts';
import { type OptionTree, type OptionValue, parseBoolOption, parseOptions, takePrefix } from './options.ts';
import { PROBE_BYTES, probeFormat } from './probe.ts';
import * as request from './request.ts';

/** Nodes opened from one option tree, one below the other: more is a mistake or an attack. */
const MAX_DEPTH = 16;

export interface OpenRequest {
  readonly filename: string | undefined;
  readonly tree: OptionTree;
  readonly options: OpenOptions;
  /** Settings of the parent that this child inherits from (BL-OPEN-27). */
  readonly inherited?: NodeSettings;
  readonly depth?: number;
}

/** Opens a node with all below it, or finds the one referred to. Throws BlockError, and then leaves nothing open. */
export async function openNode(graph: Graph, asked: OpenRequest): Promise<BlockNode> {
  const depth = asked.depth ?? 0;
  if (depth > MAX_DEPTH) throw new BlockError('ELOOP', `More than ${MAX_DEPTH} nodes below one another`);
  asked.options.signal?.throwIfAborted();
  const fromName = asked.filename === undefined ? undefined : jsonNameOptions(asked.filename);
  const filename = fromName === undefined ? asked.filename : undefined;
  const given: Record<string, OptionValue> = { ...fromName, ...asked.tree };
  if (depth === 0 && asked.options.format !== undefined) given.driver = asked.options.format;
  const { layer, rest } = takeLayerOptions(given);
  const driver = layer.driver === undefined ? undefined : lookUp(graph, String(layer.driver));
  const settings = layerSettings(layer, asked);
  const nodeName = layer['node-name'] === undefined ? asked.options.nodeName : String(layer['node-name']);
  const name = depth === 0 || layer['node-name'] !== undefined ? nodeName : undefined;
  const level = { graph, asked, settings, filename, name, depth };
  if (driver?.kind === 'protocol' || (driver === undefined && depth > 0)) return openProtocol(level, driver, rest);
  return openFormat(level, driver, rest);
}

interface Level {
  readonly graph: Graph;
  readonly asked: OpenRequest;
  readonly settings: NodeSettings;
  readonly filename: string | undefined;
  readonly name: string | undefined;
  readonly depth: number;
}

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
type LayerOptions = { [K in (typeof LAYER_KEYS)[number]]?: OptionValue };

function takeLayerOptions(tree: OptionTree): { layer: LayerOptions; rest: OptionTree } {
  const layer: LayerOptions = {};
  const rest: Record<string, OptionValue> = { ...tree };
  for (const key of LAYER_KEYS) {
    const value = rest[key];
    if (value !== undefined) layer[key] = value;
    delete rest[key];
  }
  return { layer, rest };
}

/** Given options win, then what the parent passes on, then the caller's flags (BL-OPEN-4, BL-OPEN-27). */
function layerSettings(layer: LayerOptions, { options, inherited }: OpenRequest): NodeSettings {
  const flag = (key: keyof LayerOptions, fallback: boolean) => {
    const value = layer[key];
    return value === undefined || value === null ? fallback : parseBoolOption(value, key);
  };
  const cache = inherited?.cache ?? cacheSettings(options.cache ?? 'writeback');
  if (cache === undefined) throw new BlockError('EINVAL', `Invalid cache option: ${options.cache}`);
  const readOnly = flag('read-only', inherited?.readOnly ?? options.writable !== true);
  const settings: NodeSettings = {
    readOnly,
    autoReadOnly: flag('auto-read-only', inherited?.autoReadOnly ?? false),
    forceShare: flag('force-share', inherited?.forceShare ?? options.forceShare === true),
    noIO: inherited === undefined && options.noIO === true,
    checkOnly: inherited === undefined && options.checkOnly === true,
    salvage: inherited === undefined && options.salvage === true,
    cache: {
      writeBack: inherited === undefined ? cache.writeBack : true,
      direct: flag('cache.direct', cache.direct),
      noFlush: flag('cache.no-flush', cache.noFlush),
    },
    discard: discardOf(layer.discard, inherited === undefined ? (options.discard ?? 'unmap') : 'unmap'),
    detectZeroes: detectZeroesOf(layer['detect-zeroes'], inherited === undefined ? options.detectZeroes : undefined),
  };
  if (settings.forceShare && !readOnly) {
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

function detectZeroesOf(value: OptionValue | undefined, fallback: 'off' | 'on' | 'unmap' = 'off') {
  if (value === undefined) return fallback;
  if (value === 'off' || value === 'on' || value === 'unmap') return value;
  throw new BlockError('EINVAL', `invalid parameter value: ${value}`);
}

function lookUp(graph: Graph, name: string): DriverSpec {
  const driver = graph.driver(name);
  if (driver === undefined) throw new BlockError('ENOENT', `Unknown driver '${name}'`);
  return driver;
}

/** The protocol driver for a name (BL-DRV-8): devices first, then prefixes, else `file`. */
export async function protocolFor(
  graph: Graph,
  filename: string,
  withPrefix: boolean,
): Promise<ProtocolSpec<never, never>> {
  let best: ProtocolSpec<never, never> | undefined;
  let bestScore = 0;
  for (const driver of graph.drivers) {
    if (driver.kind !== 'protocol' || driver.probeDevice === undefined) continue;
    const score = await driver.probeDevice(filename, graph.host);
    if (score > bestScore) {
      best = driver;
      bestScore = score;
    }
  }
  if (best !== undefined) return best;
  const prefix = withPrefix ? protocolPrefix(filename) : undefined;
  const driver = graph.driver(prefix ?? 'file');
  if (driver?.kind !== 'protocol') throw new BlockError('ENOENT', `Unknown protocol '${prefix ?? 'file'}'`);
  return driver;
}

async function openProtocol(
  level: Level,
  given: ProtocolSpec<never, never> | undefined,
  rest: OptionTree,
): Promise<BlockNode> {
  const { graph, filename } = level;
  if (filename !== undefined && rest.filename !== undefined) {
    throw new BlockError('EINVAL', "Can't specify 'file' and 'filename' options at the same time");
  }
  let tree: OptionTree = filename === undefined ? rest : { ...rest, filename };
  let driver = given;
  if (driver === undefined) {
    if (tree.filename === undefined) throw new BlockError('EINVAL', 'Must specify either driver or file');
    driver = await protocolFor(graph, String(tree.filename), filename !== undefined);
  }
  if (filename !== undefined && driver.parseFilename !== undefined) {
    const { filename: _parsed, ...others } = tree;
    tree = { ...others, ...driver.parseFilename(filename) };
  }
  if (driver.needsFilename && (tree.filename === undefined || tree.filename === '')) {
    throw new BlockError('EINVAL', `The '${driver.name}' block driver requires a file name`);
  }
  return openDriver(level, driver, tree, undefined, typeof tree.filename === 'string' ? tree.filename : '');
}

async function openFormat(
  level: Level,
  given: FormatSpec<never, never> | undefined,
  rest: OptionTree,
): Promise<BlockNode> {
  const { graph } = level;
  const taken = takePrefix(rest, 'file');
  const { file: reference, ...own } = taken.rest;
  const hasFile = level.filename !== undefined || reference !== undefined || Object.keys(taken.inner).length > 0;
  if (!hasFile) {
    const text =
      given === undefined ? 'Must specify either driver or file' : 'A block device must be specified for "file"';
    throw new BlockError('EINVAL', text);
  }
  const file = await openFile(level, reference, taken.inner);
  try {
    const driver = given ?? (await probe(graph, file));
    const node = await openDriver(level, driver, own, file, file.filename);
    if (given === undefined && driver.name === 'raw' && node.writable) guardGuessedRaw(graph, node);
    return node;
  } catch (error) {
    if (file.parents.length === 0) await graph.closeNode(file).catch(() => {});
    throw error;
  }
}

/** The `file` child: a reference, or opened from its own options with what it inherits (BL-OPEN-12). */
async function openFile(level: Level, reference: OptionValue | undefined, inner: OptionTree): Promise<BlockNode> {
  const { graph, filename, settings, depth, asked } = level;
  if (reference !== undefined) {
    if (filename !== undefined || Object.keys(inner).length > 0) {
      throw new BlockError(
        'EINVAL',
        'Cannot reference an existing block device with additional options or a new filename',
      );
    }
    const found = graph.node(String(reference));
    if (found === undefined || !found.isOpen) {
      throw new BlockError('ENODEV', `Cannot find device='${reference}' nor node-name='${reference}'`);
    }
    return found;
  }
  return openNode(graph, { filename, tree: inner, options: asked.options, inherited: settings, depth: depth + 1 });
}

async function probe(graph: Graph, file: BlockNode): Promise<FormatSpec<never, never>> {
  const head = new Uint8Array(PROBE_BYTES);
  try {
    await request.read(file, 0, head);
  } catch (cause) {
    const code = cause instanceof BlockError ? cause.code : 'EIO';
    throw withErrno(code, 'Could not read image for determining its format', { cause, node: file.name });
  }
  const driver = probeFormat(graph.drivers, head, file.filename);
  if (driver === undefined) {
    throw new BlockError('ENOENT', 'Could not determine image format: No compatible driver found');
  }
  return driver;
}

/** BL-OPEN-16: a guest could otherwise make a raw image look like another format to the next opener. */
function guardGuessedRaw(graph: Graph, node: BlockNode): void {
  graph.host.warn(
    `WARNING: Image format was not specified for '${node.filename}' and probing guessed raw.\n` +
      '         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n' +
      "         Specify the 'raw' format explicitly to remove the restrictions.",
  );
  const { requestAlign, zeroAlign, discardAlign } = node.limits;
  const limits = {
    ...node.limits,
    requestAlign: Math.max(PROBE_BYTES, requestAlign),
    zeroAlign: Math.max(PROBE_BYTES, zeroAlign),
    discardAlign: Math.max(PROBE_BYTES, discardAlign),
  };
  node.limits = request.completeLimits(limits, node.name);
  node.probesAsOther = (head) => probeFormat(graph.drivers, head, node.filename)?.name !== 'raw';
}

/** The steps that all nodes have in common (BL-OPEN-18). */
async function openDriver(
  level: Level,
  driver: DriverSpec,
  tree: OptionTree,
  file: BlockNode | undefined,
  shownName: string,
): Promise<BlockNode> {
  const { graph, settings, asked } = level;
  requireAllowed(graph, driver.name, settings.readOnly);
  const { values, rest } = parseOptions<unknown>(driver.options, tree);
  const node = new BlockNode(graph.claimName(level.name), driver, settings, tree);
  node.filename = shownName;
  graph.register(node);
  try {
    if (file !== undefined && driver.kind === 'format') {
      if (node.writable && !file.writable && settings.autoReadOnly) node.writable = false;
      const role = driver.fileRole?.(values as never) ?? 'image';
      graph.attach('file', node, file, role, undefined);
    }
    node.impl = await callOpen(driver, openContext(level, node, values), shownName);
    if (node.impl.readOnly === true) node.writable = false;
    node.limits = request.completeLimits(node.impl.limits?.() ?? {}, node.name);
    refreshFilename(node);
    refuseUnknown(driver, rest, node.name);
    asked.options.signal?.throwIfAborted();
    graph.emit('diskwright:node:open', { node: node.name, driver: driver.name, filename: node.filename });
    return node;
  } catch (error) {
    await graph.closeNode(node).catch(() => {});
    throw error;
  }
}

function openContext(level: Level, node: BlockNode, options: unknown): OpenContext<never> {
  const { graph, settings, asked } = level;
  return {
    options: options as never,
    get file(): Child {
      const link = node.child('file');
      if (link === undefined) throw new TypeError(`a protocol ('${node.driver.name}') has no file child`);
      return link;
    },
    host: graph.host,
    node: node.name,
    writable: node.writable,
    autoReadOnly: settings.autoReadOnly,
    noIO: settings.noIO,
    checkOnly: settings.checkOnly,
    salvage: settings.salvage,
    cache: settings.cache,
    signal: asked.options.signal,
  };
}

/** A failure that only carries the system's text is told with the name (BL-OPEN-19). */
async function callOpen(driver: DriverSpec, context: OpenContext<never>, name: string): Promise<DriverNode> {
  try {
    return await driver.open(context);
  } catch (error) {
    if (!(error instanceof BlockError) || error.message !== errorText(error.code)) throw error;
    throw withErrno(error.code, name === '' ? 'Could not open image' : `Could not open '${name}'`, { cause: error });
  }
}

/** BL-DRV-5. */
function requireAllowed(graph: Graph, driver: string, readOnly: boolean): void {
  if (graph.allows(driver, !readOnly)) return;
  const reading = !readOnly && graph.allows(driver, false);
  const text = reading ? 'can only be used for read-only devices' : 'is not whitelisted';
  throw new BlockError('ENOTSUP', `Driver '${driver}' ${text}`);
}

/** Options nobody understood are an error that names the first (BL-OPEN-29). */
function refuseUnknown(driver: DriverSpec, rest: OptionTree, node: string): void {
  const [first] = Object.keys(rest);
  if (first === undefined) return;
  const text =
    driver.kind === 'protocol'
      ? `Block protocol '${driver.name}' doesn't support the option '${first}'`
      : `Block format '${driver.name}' does not support the option '${first}'`;
  throw new BlockError('EINVAL', text, { node });
}
