/** Throttle groups by name. They belong to a host, as other objects that disks are opened with do. */
import { BlockError } from '../../core/errors.ts';
import type { Host, HostClock } from '../../core/host.ts';
import { ThrottleGroup } from './group.ts';
import { type ThrottleLimits, UNLIMITED } from './limits.ts';

/** The throttle groups of a host, by name; see {@link throttleGroups}. */
export class ThrottleGroups {
  readonly #clock: HostClock;
  readonly #groups = new Map<string, ThrottleGroup>();

  constructor(clock: HostClock) {
    this.#clock = clock;
  }

  /** Throws BlockError EEXIST when the name is taken. */
  add(name: string, limits: ThrottleLimits = UNLIMITED): ThrottleGroup {
    if (this.#groups.has(name)) {
      throw new BlockError('EEXIST', `attempt to add duplicate property '${name}' to object (type 'container')`);
    }
    const group = new ThrottleGroup(name, limits, this.#clock);
    this.#groups.set(name, group);
    return group;
  }

  get(name: string): ThrottleGroup | undefined {
    return this.#groups.get(name);
  }

  /** Throws BlockError ENOENT when there is none, EBUSY while it has members (M-OBJ-1). */
  remove(name: string): void {
    const group = this.#groups.get(name);
    if (group === undefined) throw new BlockError('ENOENT', `object '${name}' not found`);
    if (group.memberCount > 0) throw new BlockError('EBUSY', `object '${name}' is in use, can not be deleted`);
    this.#groups.delete(name);
  }
}

const groupsOfHosts = new WeakMap<Host, ThrottleGroups>();

/** The groups that disks opened on `host` can name. */
export function throttleGroups(host: Host): ThrottleGroups {
  let groups = groupsOfHosts.get(host);
  if (groups === undefined) {
    groups = new ThrottleGroups(host.clock);
    groupsOfHosts.set(host, groups);
  }
  return groups;
}
