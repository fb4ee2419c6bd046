/** Filters that the core's own work puts above a node, and that no driver's name opens (BL-COMMIT-3, J-GRAPH-3). */
import type { FilterSpec } from './driver.ts';
import { refreshFilename } from './filename.ts';
import { completeFilter } from './filter.ts';
import type { Graph } from './graph.ts';
import { driverInfo } from './info.ts';
import { BlockNode } from './node.ts';
import * as request from './request.ts';

/**
 * A read-only node of `driver` over `child`, held by the caller until `graph.release`; shown as its child. Its driver
 * decides what it needs and shares. Nobody's link is moved. Throws BlockError, and then nothing is left.
 */
export async function openInternalFilter(
  graph: Graph,
  driver: FilterSpec<never>,
  child: BlockNode,
): Promise<BlockNode> {
  const settings = { ...child.settings, readOnly: true };
  const node = new BlockNode(graph.claimName(undefined), driver, settings, {}, NO_ORIGIN);
  node.implicit = true;
  node.context = child.context;
  graph.register(node);
  graph.hold(node);
  try {
    const link = graph.attach(driver.filters ?? 'file', node, child, 'filtered', undefined);
    // It has no options and is given no files: all it does is in its methods.
    const own = await driver.open({} as never);
    node.impl = completeFilter({ info: () => driverInfo(link.node) ?? {}, ...own }, link);
    node.limits = request.completeLimits(node.impl.limits?.() ?? {}, node.name);
    node.toldLength = node.impl.length();
    refreshFilename(node);
    return node;
  } catch (error) {
    await graph.release(node).catch(() => {});
    throw error;
  }
}

const NO_ORIGIN = { explicit: {}, inheritsFrom: undefined, protocolLevel: false };
