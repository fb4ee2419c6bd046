/** The graph as users of the library hold it: the engine's, with the work that is done on its chains. */
import { Graph as EngineGraph, type Target } from './core/graph.ts';
import { type CommitOptions, commitAll, commitNode } from './jobs/commit.ts';

/** A set of open nodes with the drivers and the host that they have: opens disks, and changes what is open. */
export class Graph extends EngineGraph {
  /**
   * Writes what an image stores into the image below it, or into `base` further down, and empties it (BL-COMMIT-1 to 3).
   * Requests of its users wait meanwhile. Throws BlockError; then content is as before.
   */
  commit(target: Target, options: CommitOptions = {}): Promise<void> {
    return commitNode(this, this.nodeOf(target), options);
  }

  /** The same for every device's image that has one below, until the first failure (BL-COMMIT-4). */
  commitAll(): Promise<void> {
    return commitAll(this);
  }
}
