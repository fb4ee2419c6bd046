/** What a filter leaves out passes through to the child that it filters (BL-TERM-3). */
import { type Child, type DriverNode, type Extent, NO_REOPEN_STEP } from './driver.ts';
import type { Link } from './node.ts';

/** The status of a layer that stores nothing itself: what its child says. */
export function childStatus({ name: child }: Child): Required<Pick<DriverNode, 'status' | 'tryStatusNow'>> {
  const delegate = (offset: number, length: number): Extent => ({ kind: 'delegate', length, at: { child, offset } });
  return { status: async (offset, length) => delegate(offset, length), tryStatusNow: delegate };
}

/**
 * Completes a filter's methods. One that reads by itself is never answered at once, unless it says how, and tells no
 * status, unless it does: else it would be bypassed. The same for writes.
 */
export function completeFilter(own: Partial<DriverNode>, child: Link): DriverNode {
  const passes: DriverNode = {
    length: () => child.length(),
    read: (offset, target) => child.read(offset, target),
    write: (offset, source, flags) => child.write(offset, source, flags),
    writeZeroes: (offset, length, flags) => child.writeZeroes(offset, length, flags),
    discard: (offset, length) => child.discard(offset, length),
    flush: () => child.flush(),
    limits: () => child.node.limits,
    truncate: (length, options) => child.truncate(length, options),
    prepareReopen: async () => NO_REOPEN_STEP,
  };
  if (own.read === undefined) {
    passes.tryReadNow = (offset, target) => child.tryReadNow(offset, target);
    if (own.status === undefined) Object.assign(passes, childStatus(child));
  }
  if (own.write === undefined && own.writeZeroes === undefined) passes.takesFua = (kind) => child.takesFua(kind);
  if (own.write === undefined) passes.tryWriteNow = (offset, source) => child.tryWriteNow(offset, source);
  // The filter's own object, so that who made it can know its node by it.
  return Object.assign(own, { ...passes, ...own });
}
