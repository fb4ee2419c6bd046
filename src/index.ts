/**
 * diskwright: virtual disks as a graph of nodes, each run by a driver. This entry runs in browsers too;
 * files and system calls come from `diskwright/node`.
 */
export type { CacheMode, DiscardMode } from './core/cache.ts';
export { type CreateRequest, createImage } from './core/create.ts';
export { Disk, type OpenOptions } from './core/disk.ts';
export * from './core/driver.ts';
export {
  addContext,
  asBlockError,
  BlockError,
  type BlockErrorDetails,
  type ErrorCode,
  errorText,
  withErrno,
} from './core/errors.ts';
export type { Events, NodeEvent, RequestEvent } from './core/events.ts';
export { Graph, type GraphOptions } from './core/graph.ts';
export type * from './core/host.ts';
export {
  type NestedOptions,
  type Option,
  type OptionSchema,
  type OptionTree,
  type OptionType,
  type OptionValue,
  option,
  parseKeyValues,
} from './core/options.ts';
export {
  ALL_PERMISSIONS,
  NO_PERMISSIONS,
  Permission,
  type PermissionSet,
  type Permissions,
} from './core/permissions.ts';
export type { BlockStatus } from './core/status.ts';
