/** From a name or an option tree to opened nodes (BL-OPEN). */
import { refuseInactive } from './activation.ts';
import { openBacking } from './backing-open.ts';
import { skipFilters } from './chain.ts';
import { setTracked } from './change-tracker.ts';
import { debugEvent } from './debug.ts';
import type { OpenOptions } from './disk.ts';
import type { Child, ChildSpec, DriverInfo, DriverNode, DriverSpec, FilterSpec, OpenContext } from './driver.ts';
import { BlockError, errorText, withErrno } from './errors.ts';
import { jsonNameOptions, refreshFilename } from './filename.ts';
import { completeFilter } from './filter.ts';
import { allowedSettings, type NamedDriver, protocolFor, requireDriver } from './find-driver.ts';
import type { Graph } from './graph.ts';
import { driverInfo, lengthOf } from './info.ts';
import { openNamedChild } from './named-child.ts';
import { BlockNode, type NodeOrigin, type NodeSettings } from './node.ts';
import {
  childProtocolLevel,
  inheritedSettings,
  layerSettings,
  settingsFromFlags,
  takeLayerOptions,
} from './open-settings.ts';
import { type OptionTree, type OptionValue, parseOptions, takePrefix } from './options.ts';
import type { ChildRole } from './permissions.ts';
import { guardGuessedRaw, probeNode } from './probe-node.ts';
import * as request from './request.ts';
import { openUnderOverlay } from './snapshot.ts';

/** Nodes opened from one option tree, one below the other: more is a mistake or an attack. */
const MAX_DEPTH = 16;

/** What a child takes on from the node it is opened for. */
export interface Inheritance {
  readonly settings: NodeSettings;
  readonly role: ChildRole;
  readonly protocolLevel: boolean;
}

export interface OpenRequest {
  readonly filename: string | undefined;
  readonly tree: OptionTree;
  readonly options: OpenOptions;
  /** Absent for the top node. */
  readonly inherited?: Inheritance;
  /** Links of one option tree above this node. */
  readonly depth?: number;
  /** Images above this one in its chain. */
  readonly chainDepth?: number;
  /** Their files, with links resolved. */
  readonly chainFiles?: readonly string[];
  /** Shown name of the image in which the name was found, if it was (policy.ts). */
  readonly namedBy?: string | undefined;
}

/** A node being opened: what was asked for, and what follows from it whatever the driver. */
export interface Level {
  readonly graph: Graph;
  readonly asked: OpenRequest;
  readonly settings: NodeSettings;
  readonly filename: string | undefined;
  readonly name: string | undefined;
  readonly explicit: OptionTree;
}

/**
 * Opens a node with all below it. The caller has the one reference, links the node and drops it by `graph.unpin`
 * (BL-TERM-9). Throws BlockError, and then leaves nothing open.
 */
export async function openNode(graph: Graph, asked: OpenRequest): Promise<BlockNode> {
  const depth = asked.depth ?? 0;
  if (depth > MAX_DEPTH) throw new BlockError('ELOOP', `More than ${MAX_DEPTH} nodes below one another`);
  asked.options.signal?.throwIfAborted();
  if (asked.inherited === undefined && asked.options.snapshot === true) return openUnderOverlay(graph, asked);
  const fromName = asked.filename === undefined ? undefined : jsonNameOptions(asked.filename);
  const filename = fromName === undefined ? asked.filename : undefined;
  const explicit: Record<string, OptionValue> = { ...fromName, ...asked.tree };
  if (asked.inherited === undefined && asked.options.format !== undefined) explicit.driver = asked.options.format;
  const { layer, rest } = takeLayerOptions(explicit);
  const driver = typeof layer.driver !== 'string' ? undefined : requireDriver(graph, String(layer.driver));
  const base = asked.inherited?.settings ?? settingsFromFlags(asked.options);
  const given = layer['node-name'];
  const name =
    given === undefined ? (asked.inherited === undefined ? asked.options.nodeName : undefined) : String(given);
  const level: Level = { graph, asked, settings: layerSettings(layer, base), filename, name, explicit };
  if (driver?.kind === 'protocol' || (driver?.kind === 'filter' && filename !== undefined && driver.parseFilename)) {
    return openNamed(level, driver, rest);
  }
  if (driver !== undefined) return openWithChildren(level, driver, rest);
  return asked.inherited?.protocolLevel === true ? openNamed(level, undefined, rest) : openProbed(level, rest);
}

/** What reaches its storage by a name (BL-OPEN-6 to 8). */
async function openNamed(level: Level, given: NamedDriver | undefined, rest: OptionTree): Promise<BlockNode> {
  const { graph, filename } = level;
  if (filename !== undefined && rest.filename !== undefined) {
    throw new BlockError('EINVAL', "Can't specify 'file' and 'filename' options at the same time");
  }
  let tree: OptionTree = filename === undefined ? rest : { ...rest, filename };
  let driver = given;
  if (driver === undefined) {
    if (tree.filename === undefined) throw new BlockError('EINVAL', 'Must specify either driver or file');
    driver = await protocolFor(graph, String(tree.filename), filename !== undefined, level.asked.options.context);
  }
  if (driver.kind === 'filter') return openNamedFilter(level, driver, tree);
  if (filename !== undefined && driver.parseFilename !== undefined) {
    const { filename: _parsed, ...others } = tree;
    tree = { ...others, ...driver.parseFilename(filename) };
  }
  if (driver.needsFilename && (tree.filename === undefined || tree.filename === '')) {
    throw new BlockError('EINVAL', `The '${driver.name}' block driver requires a file name`);
  }
  return openDriver(level, driver, tree, [], typeof tree.filename === 'string' ? tree.filename : '');
}

/** A filter whose own form of name holds the names of its children. */
function openNamedFilter(level: Level, driver: FilterSpec<never>, tree: OptionTree): Promise<BlockNode> {
  const { filename: _parsed, ...others } = tree;
  if (level.filename === undefined || driver.parseFilename === undefined) return openWithChildren(level, driver, tree);
  const { options, children } = driver.parseFilename(level.filename);
  return openWithChildren(level, driver, { ...others, ...options }, undefined, children);
}

/** A format to be guessed from what its file holds (BL-OPEN-13). */
async function openProbed(level: Level, rest: OptionTree): Promise<BlockNode> {
  const { graph } = level;
  const { inner, rest: own } = takePrefix(rest, 'file');
  if (level.filename === undefined && (own.file ?? undefined) === undefined && Object.keys(inner).length === 0) {
    throw new BlockError('EINVAL', 'Must specify either driver or file');
  }
  const file = await openChild(level, { name: 'file', role: 'image', tree: rest, protocolLevel: true });
  try {
    const driver = await probeNode(graph, file.node);
    const node = await openWithChildren(level, driver, rest, file);
    if (driver.name === 'raw' && node.writable) guardGuessedRaw(graph, node);
    return node;
  } finally {
    await graph.unpin(file.node).catch(() => {});
  }
}

/** A child that is open, before its parent is; pinned until it is linked. */
interface OpenedChild {
  readonly name: string;
  readonly role: ChildRole;
  readonly node: BlockNode;
  /** By a name of a node that was open already. */
  readonly referenced: boolean;
}

/** A format or a filter: first its children, then itself. */
async function openWithChildren(
  level: Level,
  driver: Exclude<DriverSpec, { kind: 'protocol' }>,
  rest: OptionTree,
  file?: OpenedChild,
  names: Readonly<Record<string, string>> = level.filename === undefined
    ? {}
    : { [primaryName(driver)]: level.filename },
): Promise<BlockNode> {
  let tree = rest;
  const opened: OpenedChild[] = [];
  try {
    const { values } = parseOptions<unknown>(driver.options, tree);
    for (const [name, spec] of Object.entries(childSpecs(driver))) {
      const taken = takePrefix(tree, name);
      const { [name]: reference, ...own } = taken.rest;
      const primary = name === primaryName(driver);
      const filename = names[name];
      const given = (reference ?? undefined) !== undefined || Object.keys(taken.inner).length > 0;
      const role = typeof spec.role === 'string' ? spec.role : spec.role(values as never);
      if (primary && file !== undefined) opened.push({ ...file, role });
      else if (given || filename !== undefined) {
        const protocolLevel = spec.protocolLevel ?? childProtocolLevel(role, driver.kind === 'format');
        opened.push(await openChild({ ...level, filename }, { name, role, tree, protocolLevel }));
      } else if (spec.optional !== true) {
        throw new BlockError('EINVAL', `A block device must be specified for "${name}"`);
      }
      tree = own;
    }
    const shown = opened.find(({ name }) => name === primaryName(driver))?.node.filename ?? '';
    return await openDriver(level, driver, tree, opened, shown);
  } finally {
    for (const child of opened) if (child.node !== file?.node) await level.graph.unpin(child.node).catch(() => {});
  }
}

function primaryName(driver: Exclude<DriverSpec, { kind: 'protocol' }>): string {
  return driver.kind === 'filter' ? (driver.filters ?? 'file') : 'file';
}

/** The primary child first, unless the driver says in which order they are opened. */
function childSpecs(driver: Exclude<DriverSpec, { kind: 'protocol' }>): Record<string, ChildSpec<never>> {
  if (driver.children?.[primaryName(driver)] !== undefined) return driver.children;
  const role = driver.kind === 'filter' ? 'filtered' : (driver.fileRole ?? 'image');
  return { [primaryName(driver)]: { role }, ...driver.children };
}

interface ChildRequest {
  readonly name: string;
  readonly role: ChildRole;
  /** The parent's options. */
  readonly tree: OptionTree;
  readonly protocolLevel: boolean;
}

/** A child by reference, or opened from its own options with what it inherits (BL-OPEN-12). */
async function openChild(level: Level, { name, role, tree, protocolLevel }: ChildRequest): Promise<OpenedChild> {
  const { graph, filename, settings, asked } = level;
  const { inner, rest } = takePrefix(tree, name);
  const reference = rest[name] ?? undefined;
  if (reference !== undefined) {
    const plain = filename === undefined && Object.keys(inner).length === 0;
    return { name, role, node: referredNode(graph, reference, plain), referenced: true };
  }
  const inherited = { settings: inheritedSettings(settings, role), role, protocolLevel };
  const { options, namedBy, chainDepth = 0, chainFiles = [] } = asked;
  const depth = (asked.depth ?? 0) + 1;
  const above = { chainDepth, chainFiles, namedBy };
  // Children that are images have their own backing files (BL-OPEN-27).
  const childOptions = options.noBacking === true ? { ...options, noBacking: false } : options;
  const node = await openNode(graph, { filename, tree: inner, options: childOptions, inherited, depth, ...above });
  return { name, role, node, referenced: false };
}

/** A device decides, then a node (BL-OPEN-2). Pinned, so that it stays until it is linked. */
export function referredNode(graph: Graph, reference: OptionValue, plain: boolean): BlockNode {
  if (!plain) {
    throw new BlockError(
      'EINVAL',
      'Cannot reference an existing block device with additional options or a new filename',
    );
  }
  try {
    const node = graph.lookUp(String(reference));
    graph.pin(node);
    return node;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new BlockError('ENODEV', error.message, { cause: error });
  }
}

/** The steps that all nodes have in common (BL-OPEN-18). */
async function openDriver(
  level: Level,
  driver: DriverSpec,
  tree: OptionTree,
  children: readonly OpenedChild[],
  shownName: string,
): Promise<BlockNode> {
  const { graph, asked } = level;
  const settings = allowedSettings(graph, driver.name, level.settings);
  refuseInactive(driver, asked);
  const copiesOnRead = asked.inherited === undefined && asked.options.copyOnRead === true;
  if (copiesOnRead && settings.readOnly) {
    throw new BlockError('EINVAL', "Can't use copy-on-read on read-only device");
  }
  askPolicy(graph, driver, asked, shownName);
  const { own, backing } = takeBackingOptions(graph, driver, tree, asked);
  const { values, rest } = parseOptions<unknown>(driver.options, own);
  const origin: NodeOrigin = {
    explicit: level.explicit,
    inheritsFrom: undefined,
    protocolLevel: asked.inherited?.protocolLevel === true,
  };
  const node = new BlockNode(graph.claimName(level.name), driver, settings, own, origin);
  node.filename = shownName;
  node.context = asked.options.context;
  node.inactive = asked.options.inactive === true;
  node.opening = true;
  graph.pin(node);
  graph.register(node);
  try {
    // What copies to itself on reading must be able to write (BL-OPEN-22).
    const mayDegrade = settings.autoReadOnly && !copiesOnRead;
    for (const child of children) adopt(graph, node, child, mayDegrade);
    const { context } = node;
    const opening = openContext(level, node, values, isGiven(backing, asked));
    // It reads from its children, which are not to be changed meanwhile.
    node.impl = await graph.control.run('shared', [node], () => callOpen(node, opening, shownName));
    // Others that it is linked with may have moved meanwhile, and it with them.
    if (node.context !== context) node.impl.prepareContext?.(node.context).commit();
    if (node.impl.readOnly === true && node.writable) degrade(node, mayDegrade);
    node.toldLength = firstLength(node);
    node.limits = request.completeLimits(node.impl.limits?.() ?? {}, node.name);
    await openBacking(level, node, backing);
    refreshFilename(node);
    refuseUnknown(driver, rest, node.name);
    asked.options.signal?.throwIfAborted();
    node.opening = false;
    graph.emit('diskwright:node:open', { node: node.name, driver: driver.name, filename: node.filename });
    return node;
  } catch (error) {
    await graph.unpin(node).catch(() => {});
    throw error;
  }
}

/** What the driver cannot write is refused, unless the options let it be opened for reading instead (BL-OPEN-22). */
function degrade(node: BlockNode, mayDegrade: boolean): void {
  if (!mayDegrade) throw new BlockError('EACCES', 'Image is read-only', { node: node.name });
  node.writable = false;
}

/** The longest disk, bytes (BL-SIZE-1), as far as offsets are safe integers. */
const LENGTH_MAX = Math.min(2 ** 63 - 2 ** 30, Number.MAX_SAFE_INTEGER);

function firstLength(node: BlockNode): number {
  const text = 'Could not refresh total sector count';
  const length = lengthOf(node, text);
  if (length > LENGTH_MAX) throw withErrno('EFBIG', text, { node: node.name });
  return length;
}

function adopt(
  graph: Graph,
  node: BlockNode,
  { name, role, node: child, referenced }: OpenedChild,
  mayDegrade: boolean,
): void {
  if (node.writable && !child.writable && node.settings.autoReadOnly) degrade(node, mayDegrade);
  graph.attach(name, node, child, role, undefined);
  if (!referenced) child.origin = { ...child.origin, inheritsFrom: node };
}

function askPolicy(graph: Graph, driver: DriverSpec, { namedBy }: OpenRequest, shownName: string): void {
  if (namedBy === undefined) return;
  const filename = driver.kind === 'protocol' ? shownName : '';
  if (graph.openPolicy.allow({ namedBy, driver: driver.name, kind: driver.kind, filename })) return;
  const what = filename === '' ? `driver '${driver.name}'` : `'${filename}' with driver '${driver.name}'`;
  throw new BlockError('EACCES', `Opening ${what}, which '${namedBy}' names, is not allowed`);
}

/** Options of the backing child, which every format may be told not to have (BL-CHAIN-7). */
export interface BackingOptions {
  /** A node's name; null: no backing file. */
  readonly reference: OptionValue | undefined;
  readonly inner: OptionTree;
}

function takeBackingOptions(
  graph: Graph,
  driver: DriverSpec,
  tree: OptionTree,
  { options: { noBacking } }: OpenRequest,
): { own: OptionTree; backing: BackingOptions } {
  const { inner, rest } = takePrefix(tree, 'backing');
  const { backing, ...own } = rest;
  if (backing === '') {
    graph.host.warn('warning: Use of "backing": "" is deprecated; use "backing": null instead');
  }
  const reference = backing === '' ? null : backing;
  const isNamed = (reference ?? undefined) !== undefined || Object.keys(inner).length > 0;
  // Nobody understands options of a backing file that is left out (BL-OPEN-29).
  if (isNamed && noBacking === true) return { own: tree, backing: { reference: undefined, inner: {} } };
  const supported = driver.kind === 'format' && driver.supportsBacking === true;
  if (isNamed && !supported) throw new BlockError('EINVAL', "Driver doesn't support backing files");
  return { own, backing: { reference, inner } };
}

/** Whether the caller decides about the backing child, also by leaving it out. */
function isGiven({ reference, inner }: BackingOptions, { options }: OpenRequest): boolean {
  return reference !== undefined || options.noBacking === true || Object.keys(inner).length > 0;
}

function openContext(level: Level, node: BlockNode, options: unknown, backingGiven: boolean): OpenContext<never> {
  const { graph, settings, asked } = level;
  const primary = node.driver.kind === 'protocol' ? '' : primaryName(node.driver);
  return {
    options: options as never,
    get file(): Child {
      const link = node.child(primary);
      if (link === undefined) throw new TypeError(`a protocol ('${node.driver.name}') has no file child`);
      return link;
    },
    child: (name) => node.child(name),
    childInfo: (name) => openInfo(node.child(name)?.node),
    openNamed: (name, role, filename) => openNamedChild(level, node, { name, role, filename }),
    backingGiven,
    event(name) {
      const below = node.child(primary)?.node;
      return below && debugEvent(below, name);
    },
    track: (tracker, tracked) => setTracked(node, tracker, tracked),
    eventsHeard() {
      const below = node.child(primary)?.node;
      return below?.isOpen === true && below.impl.debugEvent !== undefined;
    },
    host: graph.host,
    hostContext: node.context,
    node: node.name,
    writable: node.writable,
    autoReadOnly: settings.autoReadOnly,
    inactive: node.inactive,
    namedByImage: asked.namedBy !== undefined,
    noIO: settings.noIO,
    checkOnly: settings.checkOnly,
    salvage: settings.salvage,
    cache: settings.cache,
    discard: settings.discard,
    signal: asked.options.signal,
  };
}

/** With what only the child's format has, also where filters are between. */
function openInfo(node: BlockNode | undefined): DriverInfo | undefined {
  if (!node?.isOpen) return undefined;
  const { specific } = driverInfo(skipFilters(node)) ?? {};
  return { ...driverInfo(node), ...(specific && { specific }) };
}

/** A failure that only carries the system's text is told with the name (BL-OPEN-19). */
async function callOpen(node: BlockNode, context: OpenContext<never>, name: string): Promise<DriverNode> {
  const { driver, filtered } = node;
  try {
    if (driver.kind !== 'filter') return await driver.open(context);
    const own = await driver.open(context);
    if (filtered === undefined) throw new TypeError(`the filter '${driver.name}' has its filtered child`);
    return completeFilter(own, filtered);
  } catch (error) {
    if (!(error instanceof BlockError) || error.message !== errorText(error.code)) throw error;
    throw withErrno(error.code, name === '' ? 'Could not open image' : `Could not open '${name}'`, { cause: error });
  }
}

/** Options nobody understood are an error that names the first (BL-OPEN-29). */
function refuseUnknown(driver: DriverSpec, rest: OptionTree, node: string): void {
  const [first] = Object.keys(rest);
  if (first === undefined) return;
  const byName = driver.kind === 'protocol' || (driver.kind === 'filter' && driver.parseFilename !== undefined);
  const text = byName
    ? `Block protocol '${driver.name}' doesn't support the option '${first}'`
    : `Block format '${driver.name}' does not support the option '${first}'`;
  throw new BlockError('EINVAL', text, { node });
}
