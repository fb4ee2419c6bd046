/** What a reopen would make of which nodes, checked as far as that can be without asking drivers (BL-REOPEN-1, -2, -5, -8). */
import { BlockError } from './errors.ts';
import type { Graph } from './graph.ts';
import { refuseLoop } from './graph-change.ts';
import type { BlockNode, Link, NodeSettings } from './node.ts';
import { inheritedSettings, layerSettings, settingsFromFlags, takeLayerOptions } from './open-settings.ts';
import {
  type AnySchema,
  flattenOptions,
  type NestedOptions,
  type OptionTree,
  type OptionValue,
  parseOptions,
  takePrefix,
} from './options.ts';
import { parentsFirst } from './walks.ts';

export interface ReopenRequest {
  readonly node: BlockNode;
  /** Nested or with dotted keys; `NAME.*` reaches the child, `NAME` is a reference, or null for `backing`. */
  readonly options: NestedOptions;
  /** What is not given goes back to its default, instead of staying as it is. */
  readonly reset?: boolean;
}

/** One node's new state. */
export interface ReopenEntry {
  readonly node: BlockNode;
  readonly settings: NodeSettings;
  /** Less than the settings say where the node was degraded (BL-OPEN-22), unless writing is asked for now. */
  readonly writable: boolean;
  readonly writingAsked: boolean;
  /** The driver's own options, as text and parsed. */
  readonly options: OptionTree;
  readonly values: unknown;
  readonly optionsChanged: boolean;
  readonly explicit: OptionTree;
  /** Children to be exchanged. */
  readonly children: Readonly<Record<string, string | null>>;
}

/** What is asked of one node: by itself, and by parents that it inherits from. */
interface Asked {
  readonly given: OptionTree;
  readonly reset: boolean;
}

/** Parents come first; a node asked for twice gets both requests' options, the later ones winning. */
export function planReopen(graph: Graph, requests: readonly ReopenRequest[]): ReopenEntry[] {
  const asked = new Map<BlockNode, Asked>();
  for (const { node, options, reset = false } of requests) {
    const before = asked.get(node);
    asked.set(node, {
      given: { ...before?.given, ...flattenOptions(options) },
      reset: reset || before?.reset === true,
    });
  }
  const plan = new Map<BlockNode, ReopenEntry>();
  for (const node of parentsFirst([...asked.keys()], inherits)) {
    const parent = node.origin.inheritsFrom;
    const above = parent && asked.get(parent);
    const link = linkOf(parent, node);
    // It leaves this place for another node.
    if (above !== undefined && link !== undefined && isReplaced(above, link) && !asked.has(node)) continue;
    const all = mergeAsked(above && link && fromParent(above, link), asked.get(node));
    // Children look here for what their options are.
    asked.set(node, all);
    plan.set(node, planNode(graph, node, all, parent && plan.get(parent)));
  }
  return [...plan.values()];
}

/** Whether it takes on what its parent has, and so is reopened with it. */
function inherits(parent: BlockNode, { node }: Link): boolean {
  return node.origin.inheritsFrom === parent;
}

function linkOf(parent: BlockNode | undefined, node: BlockNode): Link | undefined {
  return parent?.children.find((link) => link.node === node);
}

function isReplaced({ given }: Asked, { name, node }: Link): boolean {
  return given[name] !== undefined && given[name] !== node.name;
}

/** What a parent's options say of this child. One of which they say nothing stays as it is, save for what it inherits. */
function fromParent({ given, reset }: Asked, { name }: Link): Asked {
  const { inner } = takePrefix(given, name);
  return { given: inner, reset: reset && Object.keys(inner).length > 0 };
}

function mergeAsked(above: Asked | undefined, own: Asked | undefined): Asked {
  return { given: { ...above?.given, ...own?.given }, reset: own?.reset ?? above?.reset ?? false };
}

function planNode(
  graph: Graph,
  node: BlockNode,
  { given: all, reset }: Asked,
  above: ReopenEntry | undefined,
): ReopenEntry {
  const { own: given, children } = splitChildren(graph, node, all, reset);
  const before = splitChildren(graph, node, node.origin.explicit, false).own;
  const explicit = reset ? { ...keepIdentity(before), ...given } : { ...before, ...given };
  const { layer, rest } = takeLayerOptions(explicit);
  refuseOtherIdentity(node, given);
  const link = linkOf(above?.node, node);
  const defaults = reset ? settingsFromFlags({ writable: true, noIO: node.settings.noIO }) : node.settings;
  const base = above !== undefined && link !== undefined ? inheritedSettings(above.settings, link.role) : defaults;
  const settings = layerSettings(layer, base);
  if (given['force-share'] !== undefined && settings.forceShare !== node.settings.forceShare) {
    throw cannotChange(node, 'force-share');
  }
  const options = reset ? rest : { ...node.options, ...takeLayerOptions(given).rest };
  const optionsChanged = checkOptions(node, options, reset);
  const writingAsked =
    given['read-only'] !== undefined || (above?.writingAsked === true && link !== undefined && link.role !== 'cow');
  const degraded = !node.settings.readOnly && !node.writable && !writingAsked;
  // Children's options stay theirs; those given with a reference are gone with the child.
  const kept = Object.fromEntries(Object.entries(node.origin.explicit).filter(([key]) => !Object.hasOwn(before, key)));
  return {
    node,
    settings,
    writable: !settings.readOnly && !degraded,
    writingAsked,
    options,
    values: parseOptions<unknown>(node.driver.options, options).values,
    optionsChanged,
    explicit: { ...kept, ...explicit },
    children,
  };
}

function keepIdentity(tree: OptionTree): OptionTree {
  const { driver, 'node-name': name } = tree;
  return { ...(driver !== undefined && { driver }), ...(name !== undefined && { 'node-name': name }) };
}

/** Neither the driver nor the name can change. */
function refuseOtherIdentity(node: BlockNode, given: OptionTree): void {
  if (given.driver !== undefined && given.driver !== node.driver.name) throw cannotChange(node, 'driver');
  if (given['node-name'] !== undefined && given['node-name'] !== node.name) throw cannotChange(node, 'node-name');
}

function cannotChange(node: BlockNode, key: string): BlockError {
  return new BlockError('EINVAL', `Cannot change the option '${key}'`, { node: node.name });
}

/** Takes apart what is said of the node itself and of its children (BL-REOPEN-8). */
function splitChildren(
  graph: Graph,
  node: BlockNode,
  tree: OptionTree,
  reset: boolean,
): { own: OptionTree; children: Record<string, string | null> } {
  let own: OptionTree = tree;
  const children: Record<string, string | null> = {};
  for (const name of new Set([...node.children.map((link) => link.name), 'backing', 'file'])) {
    const { inner, rest } = takePrefix(own, name);
    const { [name]: reference, ...others } = rest;
    const link = node.child(name);
    if (tree !== node.origin.explicit) checkChild(node, name, inner, reference);
    own = others;
    if (reference !== undefined && tree !== node.origin.explicit) {
      const change = childChange(graph, node, name, reference);
      if (change !== undefined) children[name] = change;
    } else if (reset && name === 'backing' && (link !== undefined || node.storedBacking !== undefined)) {
      if (Object.keys(inner).length === 0) throw new BlockError('EINVAL', `backing is missing for '${node.name}'`);
    }
  }
  return { own, children };
}

/** Options for a child that is somebody else's, that is not there, or that is named, change nothing and so are refused. */
function checkChild(node: BlockNode, name: string, inner: OptionTree, reference: OptionValue | undefined): void {
  const [first] = Object.keys(inner);
  if (first === undefined) return;
  if (reference !== undefined || node.child(name)?.node.origin.inheritsFrom !== node) {
    throw cannotChange(node, `${name}.${first}`);
  }
}

/** The node that a child is to be exchanged for; undefined: it is that already (BL-REOPEN-8). */
function childChange(graph: Graph, node: BlockNode, name: string, reference: OptionValue): string | null | undefined {
  const link = node.child(name);
  const { driver } = node;
  if (reference === null) {
    if (name !== 'backing' || driver.kind === 'filter') throw cannotChange(node, name);
    return link === undefined ? undefined : null;
  }
  const target = graph.lookUp({ node: String(reference) });
  if (link?.node === target) return undefined;
  const fail = (text: string) => new BlockError('EINVAL', text, { node: node.name });
  if (link?.node.implicit) throw fail(`Cannot replace implicit ${name} child of ${node.name}`);
  refuseLoop(name, node, target);
  if (driver.kind === 'filter' && link === undefined) {
    throw fail(`'${node.name}' is a ${driver.name} filter node that does not support a ${name} child`);
  }
  if (name === 'file' && link === undefined) throw fail('Cannot set file child to format node without file child');
  return target.name;
}

/** What may not be changed must be as it was (BL-REOPEN-5). Returns whether anything differs. */
function checkOptions(node: BlockNode, options: OptionTree, reset: boolean): boolean {
  const schema = node.driver.options as AnySchema;
  let changed = false;
  for (const [key, value] of Object.entries(options)) {
    const before = node.options[key] ?? schema[key]?.fallback;
    if (sameValue(before, value)) continue;
    if (schema[key]?.reopen !== true) throw cannotChange(node, key);
    changed = true;
  }
  if (!reset) return changed;
  for (const key of Object.keys(node.options)) {
    if (options[key] !== undefined) continue;
    if (schema[key]?.reopen !== true) {
      throw new BlockError('EINVAL', `Option '${key}' cannot be reset to its default value`, { node: node.name });
    }
    changed = true;
  }
  return changed;
}

/** `1` and `"1"`, `true` and `"on"` are one value. */
function sameValue(a: unknown, b: unknown): boolean {
  const text = (value: unknown) => (value === true ? 'on' : value === false ? 'off' : String(value));
  return text(a) === text(b);
}
