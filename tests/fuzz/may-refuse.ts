import { BlockError } from '../../src/core/errors.ts';

/** What a hostile image may refuse: undefined then. Anything else is a mistake of ours, and thrown. */
export async function mayRefuse<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof BlockError) return undefined;
    throw error;
  }
}
