/**
 * diskwright: virtual disks as a graph of nodes, each run by a driver. This entry runs in browsers too;
 * files and system calls come from `diskwright/node`.
 */
export type {
  BitmapList,
  BitmapOwner,
  BitmapStore,
  NewBitmap,
} from './bitmaps/bitmap-list.ts';
export {
  type AddBitmapOptions,
  type BitmapReference,
  bitmapListOf,
  bitmaps,
  type DirtyAreasOptions,
  type NodeBitmaps,
} from './bitmaps/bitmaps.ts';
export {
  type BitmapInfo,
  type DirtyBitmap,
  mergeBitmaps,
  type OpenIterator,
  type UseMark,
} from './bitmaps/dirty-bitmap.ts';
export { type ByteRange, type GranuleIterator, HierarchicalBitmap } from './bitmaps/hierarchical-bitmap.ts';
export { activate, inactivate } from './core/activation.ts';
export {
  block,
  isBlocked,
  isUnblocked,
  OPERATIONS,
  type Operation,
  requireUnblocked,
  unblock,
} from './core/blockers.ts';
export type { ByteStream, ByteStreamListener } from './core/byte-stream.ts';
export type { CacheMode, DiscardMode } from './core/cache.ts';
export { backingDepth, chainContains, findBackingImage, findBase, findOverlay, imagesOf } from './core/chain.ts';
export { changeBackingFile, dropIntermediate, requireReplaceable, setBacking } from './core/chain-change.ts';
export {
  addContextNotifier,
  type ContextNotifier,
  removeContextNotifier,
  type SetContextOptions,
  setContext,
} from './core/context.ts';
export { type CreateRequest, createImage } from './core/create.ts';
export { isSuspended, removeBreakpoint, resumeBreakpoint, setBreakpoint } from './core/debug.ts';
export type { Device, DeviceListener, DeviceOptions, Devices } from './core/device.ts';
export { Disk, type OpenOptions } from './core/disk.ts';
export type { CreateSnapshotOptions, DiskSnapshots, SnapshotChoice, VmState } from './core/disk-snapshots.ts';
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
export type { Events, NodeEvent, RequestEvent, TrayEvent } from './core/events.ts';
export type { GraphOptions, ReopenChange, Target } from './core/graph.ts';
export type * from './core/host.ts';
export type * from './core/host-crypto.ts';
export type * from './core/host-network.ts';
export { blockSizes, diskGeometry, nodeInfo } from './core/info.ts';
export type { IoLimiter, IoLimits, LimitedKind } from './core/io-limiter.ts';
export { type ImageRecord, type NodeRecord, namedNodes } from './core/named-nodes.ts';
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
export type { SnapshotRecord } from './core/snapshot-record.ts';
export type { BlockStatus } from './core/status.ts';
export { type SecretsById, secrets } from './crypto/secrets.ts';
export { DRIVERS } from './drivers.ts';
export type { Action as FaultAction, Scenario as FaultScenario } from './filters/blkdebug/actions.ts';
export { type Blkdebug, blkdebugOf } from './filters/blkdebug/control.ts';
export type { LiveRule as LiveFaultRule } from './filters/blkdebug/engine.ts';
export type { RuleOptions as FaultRuleOptions } from './filters/blkdebug/rules.ts';
export { type MismatchDetails, MismatchError } from './filters/blkverify/mismatch.ts';
export { blkverifyOf } from './filters/blkverify/node.ts';
export type { Verifier, VerifyCounts } from './filters/blkverify/verifier.ts';
export { mark as markLog } from './filters/log/node.ts';
export type { ThrottleGroup, ThrottleMember } from './filters/throttle/group.ts';
export { type ThrottleGroups, throttleGroups } from './filters/throttle/groups.ts';
export type { BucketLimits } from './filters/throttle/leaky-bucket.ts';
export {
  describeLimits as describeThrottleLimits,
  parseLimits as parseThrottleLimits,
  type ThrottleLimits,
} from './filters/throttle/limits.ts';
export { Graph } from './graph.ts';
export { type NamedBacking, namedBacking } from './jobs/backing-chain.ts';
export { type CheckDiskOptions, type CheckResult, checkDisk } from './jobs/check.ts';
export { type Checksum, type ChecksumOptions, checksum as checksumDisk } from './jobs/checksum.ts';
export { type CommitOptions, commit as commitDisk, commitAll, commitNode } from './jobs/commit.ts';
export { type CompactResult, compactDisk } from './jobs/compact.ts';
export { type CompareOptions, type Comparison, compare as compareDisks } from './jobs/compare.ts';
export { type ConvertOptions, type ConvertTarget, convert as convertDisks } from './jobs/convert.ts';
export {
  CannotCheck,
  type CrashFinding,
  type CrashLabOptions,
  type CrashReport,
  type CrashState,
  crashLab,
} from './jobs/crash-lab/crash-lab.ts';
export { describeFinding, describeReport, type LostChange } from './jobs/crash-lab/report.ts';
export { type DdOptions, type DdResult, dd as copyBlocks } from './jobs/dd.ts';
export { type MapEntry, type MapOptions, map as mapDisk } from './jobs/map.ts';
export { type MeasureOptions, measure as measureContent } from './jobs/measure.ts';
export { graphDot } from './jobs/picture/dot.ts';
export {
  type GraphPicture,
  graphPicture,
  type PictureBox,
  type PictureLimits,
  type PictureLink,
  type PictureNode,
  type PictureUser,
} from './jobs/picture/model.ts';
export { graphSvg } from './jobs/picture/svg.ts';
export { graphTree } from './jobs/picture/tree.ts';
export { type RebaseOptions, rebase as rebaseDisk } from './jobs/rebase.ts';
export {
  logEntries,
  type ReplayOptions,
  type ReplayResult,
  replay as replayLog,
} from './jobs/replay.ts';
export { parseSizeChange, type ResizeOptions, resizeDisk, type SizeChange } from './jobs/resize.ts';
export { type StreamedImage, type StreamOptions, streamImage } from './jobs/stream.ts';
export { NbdClient as NbdConnection, type NbdClientOptions as NbdConnectionOptions } from './nbd/client/client.ts';
export { type TlsCredentialsById, tlsCredentials } from './nbd/client/credentials.ts';
export type { ExportFacts } from './nbd/client/facts.ts';
export type { Agreement } from './nbd/client/handshake.ts';
export type { ContextExtents } from './nbd/client/pending.ts';
export { type PortLike, portStream } from './nbd/port-stream.ts';
export {
  type Authorization,
  type AuthorizationRule,
  type AuthorizationRules,
  authorizeByRules,
} from './nbd/server/authorize.ts';
export type { NbdServerEvents } from './nbd/server/events.ts';
export type { ExportOptions, NbdExport } from './nbd/server/export.ts';
export { NbdServer, type NbdServerOptions, type NbdServerStats } from './nbd/server/server.ts';
export type { NbdClient, ServerTls, TlsIdentity } from './nbd/server/session.ts';
