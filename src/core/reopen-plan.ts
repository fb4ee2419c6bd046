/** What a reopen would make of which nodes, checked as far as that can be without asking drivers (BL-REOPEN-1, -2, -5, -8). */
import { BlockError } from './errors.ts';
import type { Graph } from './graph.ts';
import type { BlockNode, NodeSettings } from './node.ts';
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
  /** The driver's own options, as text and parsed. */
  readonly options: OptionTree;
  readonly values: unknown;
  readonly optionsChanged: boolean;
  readonly explicit: OptionTree;
  /** Children to be exchanged. */
  readonly children: Readonly<Record<string, string | null>>;
}

interface Queued {
  given: OptionTree;
  reset: boolean;
}

/** Parents come first; a node asked for twice gets both requests' options, the later ones winning. */
export function planReopen(graph: Graph, requests: readonly ReopenRequest[]): ReopenEntry[] {
  const queued = new Map<BlockNode, Queued>();
  for (const { node, options, reset = false } of requests) {
    const before = queued.get(node);
    queued.set(node, {
      given: { ...before?.given, ...flattenOptions(options) },
      reset: reset || before?.reset === true,
    });
  }
  const plan = new Map<BlockNode, ReopenEntry>();
  for (const node of parentsFirst([...queued.keys()])) planNode(graph, node, queued, plan);
  return [...plan.values()];
}

/** The nodes and all that inherit from them, each after all its parents among them. */
function parentsFirst(roots: readonly BlockNode[]): BlockNode[] {
  const order: BlockNode[] = [];
  const seen = new Set<BlockNode>();
  const visit = (node: BlockNode) => {
    if (seen.has(node)) return;
    seen.add(node);
    for (const { node: child } of node.children) if (child.origin.inheritsFrom === node) visit(child);
    order.push(node);
  };
  for (const root of roots) visit(root);
  return order.reverse();
}

function planNode(
  graph: Graph,
  node: BlockNode,
  queued: Map<BlockNode, Queued>,
  plan: Map<BlockNode, ReopenEntry>,
): void {
  const parent = node.origin.inheritsFrom;
  const parentEntry = parent && plan.get(parent);
  const fromParent = parent === undefined ? undefined : parentOptions(node, parent, queued);
  const own = queued.get(node);
  const reset = own?.reset ?? fromParent?.reset ?? false;
  const { own: given, children } = splitChildren(graph, node, { ...fromParent?.given, ...own?.given }, reset);
  const before = splitChildren(graph, node, node.origin.explicit, false).own;
  const explicit = reset ? { ...keepIdentity(before), ...given } : { ...before, ...given };
  const { layer, rest } = takeLayerOptions(explicit);
  refuseOtherIdentity(node, given);
  const link = parent?.children.find((each) => each.node === node);
  const defaults = reset ? settingsFromFlags({ writable: true, noIO: node.settings.noIO }) : node.settings;
  const base =
    parentEntry !== undefined && link !== undefined ? inheritedSettings(parentEntry.settings, link.role) : defaults;
  const settings = layerSettings(layer, base);
  const options = reset ? rest : { ...node.options, ...takeLayerOptions(given).rest };
  const optionsChanged = checkOptions(node, options, reset);
  // Children's options stay theirs; those given with a reference are gone with the child.
  const kept = Object.fromEntries(Object.entries(node.origin.explicit).filter(([key]) => !Object.hasOwn(before, key)));
  plan.set(node, {
    node,
    settings,
    options,
    values: parseOptions<unknown>(node.driver.options, options).values,
    optionsChanged,
    explicit: { ...kept, ...explicit },
    children,
  });
}

/** What a queued parent's options say of this child. */
function parentOptions(node: BlockNode, parent: BlockNode, queued: Map<BlockNode, Queued>): Queued | undefined {
  const above = queued.get(parent);
  const link = parent.children.find((each) => each.node === node);
  if (above === undefined || link === undefined) return undefined;
  return { given: takePrefix(above.given, link.name).inner, reset: above.reset };
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

/** Options for a child that is somebody else's, or not there, change nothing and so are refused. */
function checkChild(node: BlockNode, name: string, inner: OptionTree, reference: OptionValue | undefined): void {
  const [first] = Object.keys(inner);
  const link = node.child(name);
  if (first !== undefined && reference === undefined && link?.node.origin.inheritsFrom !== node) {
    throw cannotChange(node, `${name}.${first}`);
  }
}

/** The node that a child is to be exchanged for; undefined: it is that already. */
function childChange(graph: Graph, node: BlockNode, name: string, reference: OptionValue): string | null | undefined {
  const link = node.child(name);
  const { driver } = node;
  const fail = (text: string) => new BlockError('EINVAL', text, { node: node.name });
  if (name === 'file' && link === undefined && driver.kind !== 'filter') {
    throw fail('Cannot set file child to format node without file child');
  }
  if (driver.kind === 'filter' && link === undefined) {
    if (reference === null) return undefined;
    throw fail(`'${node.name}' is a ${driver.name} filter node that does not support a ${name} child`);
  }
  if (reference === null || reference === '') {
    if (name !== 'backing') throw cannotChange(node, name);
    return link === undefined ? undefined : null;
  }
  const target = graph.lookUp(String(reference));
  if (link?.node === target) return undefined;
  if (link?.node.implicit) throw fail(`Cannot replace implicit ${name} child of ${node.name}`);
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
    if (options[key] !== undefined || key === 'filename') continue;
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
