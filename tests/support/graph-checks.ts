/** What must hold of a graph whenever nothing is under way, worked out anew from its links alone. */
import { BLOCKED_ON_BACKING, isBlocked, OPERATIONS } from '../../src/core/blockers.ts';
import { refreshFilename } from '../../src/core/filename.ts';
import type { Graph } from '../../src/core/graph.ts';
import { BlockNode, type Link } from '../../src/core/node.ts';
import { ALL_PERMISSIONS, childPermissions, Permission, type Permissions } from '../../src/core/permissions.ts';
import type { SimHost } from '../../src/testing/index.ts';

/** Throws for the first thing that is wrong. The graph must be idle. */
export async function checkGraph(graph: Graph, host: SimHost): Promise<void> {
  const nodes = graph.nodes();
  for (const node of nodes) checkLinks(graph, node);
  checkNoCycle(nodes);
  for (const node of nodes) {
    checkIdle(node);
    checkPermissions(node);
    checkBlockers(node);
  }
  checkNames(nodes);
  await checkLocks(nodes, host);
}

/** All that an aborted change must leave as it was. */
export function fingerprint(graph: Graph): string {
  return JSON.stringify(graph.nodes().map(describe), undefined, 1);
}

function describe(node: BlockNode): unknown {
  return {
    name: node.name,
    parents: node.parents.map((link) => [...linkState(link), link.parent instanceof BlockNode ? link.parent.name : '']),
    children: node.children.map((link) => [...linkState(link), link.node.name]),
    settings: node.settings,
    options: node.options,
    explicit: node.origin.explicit,
    inheritsFrom: node.origin.inheritsFrom?.name,
    info: node.impl.info?.(),
    stored: node.storedBacking,
    state: [node.writable, node.noBacking, node.automaticBackingName, node.holds, node.implicit, node.inactive],
    names: [node.filename, node.exactName, node.fullOptions],
    limits: node.limits,
    length: node.driver.name === 'layer' ? node.impl.length() : undefined,
    blocked: OPERATIONS.filter((operation) => isBlocked(node, operation)),
  };
}

function linkState({ name, role, held, frozen, blockReason }: Link): unknown[] {
  return [name, role, { ...held }, frozen, blockReason?.text];
}

/** Cheaper than expect(), since it is asked millions of times. */
function must(holds: boolean, text: string): void {
  if (!holds) throw new TypeError(text);
}

function checkLinks(graph: Graph, node: BlockNode): void {
  const { name, parents, children } = node;
  must(graph.node(name) === node, `'${name}' is found by its name`);
  must(node.inUse, `'${name}' is in use`);
  must(new Set(parents).size === parents.length, `'${name}' has no parent link twice`);
  must(new Set(children.map((link) => link.name)).size === children.length, `'${name}' has each child once`);
  for (const link of children) {
    must(link.parent === node, `a child link of '${name}' knows its parent`);
    must(link.node.parents.includes(link), `'${link.node.name}' knows its parent '${name}'`);
    must(graph.node(link.node.name) === link.node, `the child '${link.node.name}' of '${name}' is registered`);
  }
  for (const link of parents) {
    must(link.node === node, `a parent link of '${name}' leads to it`);
    if (!(link.parent instanceof BlockNode)) continue;
    must(link.parent.children.includes(link), `'${link.parent.name}' knows its child '${name}'`);
    must(graph.node(link.parent.name) === link.parent, `the parent '${link.parent.name}' of '${name}' is registered`);
  }
  must(node.origin.inheritsFrom?.closing !== true, `'${name}' inherits from what is open`);
  must(children.filter(({ role }) => role === 'cow').length <= 1, `'${name}' has one backing image at most`);
  must((node.filtered !== undefined) === (node.driver.kind === 'filter'), `the filter '${name}' has its child`);
}

function checkNoCycle(nodes: readonly BlockNode[]): void {
  const done = new Set<BlockNode>();
  const above = new Set<BlockNode>();
  const visit = (node: BlockNode) => {
    must(!above.has(node), `'${node.name}' is not below itself`);
    if (done.has(node)) return;
    above.add(node);
    for (const link of node.children) visit(link.node);
    above.delete(node);
    done.add(node);
  };
  for (const node of nodes) visit(node);
}

function checkIdle(node: BlockNode): void {
  const { name, drainDepth, tracker, pins, opening, closing } = node;
  must(drainDepth === 0, `'${name}' is not drained, but ${drainDepth} times`);
  must(tracker.idle, `'${name}' has no requests under way`);
  must(pins === 0, `'${name}' is not pinned, but ${pins} times`);
  must(!opening && !closing, `'${name}' is neither being opened nor closed`);
  for (const link of node.parents) must(link.pending === undefined, `nothing is pending for '${name}'`);
}

/** Need and share of all users together. */
function wantedOf(node: BlockNode): Permissions {
  let need = 0;
  let share = ALL_PERMISSIONS;
  for (const { held } of node.parents) {
    need |= held.need;
    if (!node.settings.forceShare) share &= held.share;
  }
  return { need, share };
}

function checkPermissions(node: BlockNode): void {
  const wanted = wantedOf(node);
  const writes = (wanted.need & (Permission.write | Permission.writeUnchanged)) !== 0;
  must(node.writable || !writes, `'${node.name}' has writers only if it is writable`);
  for (const user of node.parents) {
    for (const other of node.parents) {
      if (other === user || node.settings.forceShare) continue;
      must((user.held.need & ~other.held.share) === 0, `users of '${node.name}' stand each other`);
    }
  }
  for (const { name, role, held } of node.children) {
    const { need, share } = childPermissions(role, { writable: node.writable, noIO: node.settings.noIO }, wanted);
    const right = held.need === need && held.share === share;
    must(right, `'${node.name}' holds ${held.need}/${held.share} of '${name}', not ${need}/${share}`);
  }
}

/** Blocked as often as the node is somebody's backing image, in that one's name (BL-CHAIN-2). */
function checkBlockers(node: BlockNode): void {
  const above = node.parents.filter(({ parent, role }) => role === 'cow' && parent instanceof BlockNode);
  for (const operation of OPERATIONS) {
    const wanted = above.length > 0 && BLOCKED_ON_BACKING.includes(operation);
    must(isBlocked(node, operation) === wanted, `${operation} of '${node.name}' is ${wanted ? '' : 'not '}blocked`);
  }
  for (const link of node.parents) {
    must(
      (link.blockReason !== undefined) === above.includes(link),
      `links that use '${node.name}' as backing block it`,
    );
  }
}

function checkNames(nodes: readonly BlockNode[]): void {
  const names = () =>
    nodes.map(({ filename, exactName, fullOptions }) => JSON.stringify({ filename, exactName, fullOptions }));
  const before = names();
  for (const node of nodes) refreshFilename(node);
  names().forEach((name, index) => {
    must(name === before[index], `names are fresh: ${before[index]} would be ${name}`);
  });
}

/** A file is locked as its nodes' users need, and not otherwise. */
async function checkLocks(nodes: readonly BlockNode[], host: SimHost): Promise<void> {
  const wanted = new Map<string, Permissions>();
  for (const node of nodes) {
    if (node.driver.name !== 'file') continue;
    const { need, share } = wanted.get(node.filename) ?? { need: 0, share: ALL_PERMISSIONS };
    const more = wantedOf(node);
    wanted.set(node.filename, { need: need | more.need, share: share & more.share });
  }
  for (const [path, { need, share }] of wanted) {
    const probe = await host.files.open(path, { write: false });
    const locked = (start: number) =>
      [0, 1, 2, 3].reduce((set, bit) => set | (probe.isLocked('exclusive', start + bit, 1) ? 1 << bit : 0), 0);
    const [held, unshared] = [locked(100), locked(200)];
    await probe.close();
    must(held === need && unshared === (ALL_PERMISSIONS & ~share), `${path} is locked by ${held}/${unshared}`);
  }
}
