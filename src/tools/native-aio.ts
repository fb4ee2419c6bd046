/** `--aio=native`, which this engine has no use for, refused where QEMU's programs refuse it (T-IO-2). */
import { BlockError } from '../core/errors.ts';
import type { Graph } from '../core/graph.ts';

export const AIO_MODES: readonly string[] = ['threads', 'native', 'io_uring'];

/** Throws BlockError EINVAL where a file of the graph, other than a temporary overlay's, is read through the host's cache. */
export function requireDirectFiles(graph: Graph): void {
  const nodes = graph.nodes();
  const ours = nodes.filter(({ temporary }) => temporary).map(({ primary }) => primary?.node);
  const cached = nodes.find(
    (node) => node.driver.name === 'file' && !node.settings.cache.direct && !ours.includes(node),
  );
  if (cached === undefined) return;
  const text = 'aio=native was specified, but it requires cache.direct=on, which was not specified.';
  throw new BlockError('EINVAL', text, { node: cached.name });
}
