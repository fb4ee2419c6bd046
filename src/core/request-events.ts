/** Telling of the requests of disks' users, to who listens. */
import type { RequestEvent } from './events.ts';
import type { Graph } from './graph.ts';

/** Runs `work`, and publishes how long it took and whether it failed. */
export async function observed(
  graph: Graph,
  request: Omit<RequestEvent, 'milliseconds' | 'error'>,
  work: () => Promise<void>,
): Promise<void> {
  const { host } = graph;
  if (!host.watched('diskwright:request')) return work();
  const start = host.clock.now();
  const done = (failure: { error?: unknown }) => {
    graph.emit('diskwright:request', { ...request, milliseconds: host.clock.now() - start, ...failure });
  };
  try {
    await work();
  } catch (error) {
    done({ error });
    throw error;
  }
  done({});
}
