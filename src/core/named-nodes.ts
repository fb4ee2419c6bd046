/** The listing of all open nodes (BL-INFO-14), with the members that QEMU's programs give it. */
import { alignUp } from '../bytes/align.ts';
import { backingDepth, backingImage } from './chain.ts';
import { snapshotsIn } from './disk-snapshots.ts';
import type { DriverInfo } from './driver.ts';
import { BlockError } from './errors.ts';
import type { Graph } from './graph.ts';
import { allocatedSize, driverInfo } from './info.ts';
import type { IoLimits } from './io-limiter.ts';
import type { BlockNode } from './node.ts';
import { type SnapshotRecord, snapshotRecord } from './snapshot-record.ts';

const SECTOR = 512;

/** Sizes are bytes. */
export interface ImageRecord {
  readonly filename: string;
  readonly format: string;
  readonly 'virtual-size': number;
  /** Absent: not known. */
  readonly 'actual-size'?: number;
  readonly 'cluster-size'?: number;
  readonly encrypted?: true;
  readonly 'dirty-flag'?: boolean;
  /** As the image's header has it, and as it is resolved. */
  readonly 'backing-filename'?: string;
  readonly 'full-backing-filename'?: string;
  readonly 'backing-filename-format'?: string;
  readonly 'format-specific'?: NonNullable<DriverInfo['specific']>;
  readonly snapshots?: readonly SnapshotRecord[];
  readonly 'backing-image'?: ImageRecord;
}

/** What {@link namedNodes} tells of a node, under the names of QEMU's monitor. */
export interface NodeRecord {
  readonly 'node-name': string;
  readonly drv: string;
  readonly file: string;
  /** Read-only. */
  readonly ro: boolean;
  readonly encrypted: boolean;
  readonly detect_zeroes: 'off' | 'on' | 'unmap';
  readonly cache: { readonly writeback: boolean; readonly direct: boolean; readonly 'no-flush': boolean };
  readonly backing_file?: string;
  readonly backing_file_depth: number;
  /** Bytes; 0: none. */
  readonly write_threshold: number;
  /** Limits of the device that the node is in, per second; 0: none. */
  readonly bps: number;
  readonly bps_rd: number;
  readonly bps_wr: number;
  readonly iops: number;
  readonly iops_rd: number;
  readonly iops_wr: number;
  /** The throttle group whose limits they are. */
  readonly group?: string;
  readonly image: ImageRecord;
  readonly 'dirty-bitmaps'?: readonly object[];
}

/** One record per node, newest first; one failure fails all. `flat`: images do not tell of those below them. */
export function namedNodes(graph: Graph, { flat = false }: { readonly flat?: boolean } = {}): NodeRecord[] {
  // Those that are being opened are not there yet.
  const nodes = graph.nodes().filter((node) => node.isOpen);
  return nodes.reverse().map((node) => nodeRecord(graph, node, flat));
}

/** Throws BlockError ENOMEDIUM for a node that is not open. */
export function nodeRecord(graph: Graph, node: BlockNode, flat: boolean): NodeRecord {
  if (!node.isOpen) throw new BlockError('ENOMEDIUM', `Block device ${node.name} is ejected`, { node: node.name });
  const { cache, detectZeroes } = node.settings;
  const image = imageRecord(node, flat);
  const bitmaps = node.trackers.flatMap((tracker) => tracker.query?.() ?? []);
  const backing = node.backing?.node.filename;
  return {
    'node-name': node.name,
    drv: node.driver.name,
    file: node.filename,
    ro: !node.writable,
    encrypted: image.encrypted === true,
    detect_zeroes: detectZeroes,
    cache: { writeback: cache.writeBack, direct: cache.direct, 'no-flush': cache.noFlush },
    ...(backing !== undefined && { backing_file: backing }),
    backing_file_depth: backingDepth(node),
    write_threshold: node.writeThreshold,
    ...limitsOf(graph, node),
    image,
    ...(bitmaps.length > 0 && { 'dirty-bitmaps': bitmaps }),
  };
}

function limitsOf(graph: Graph, node: BlockNode) {
  const group = graph.devices.get(node.deviceName)?.ioLimiter?.group;
  const average = (name: keyof IoLimits) => group?.limits[name].average ?? 0;
  return {
    bps: average('bps-total'),
    bps_rd: average('bps-read'),
    bps_wr: average('bps-write'),
    iops: average('iops-total'),
    iops_rd: average('iops-read'),
    iops_wr: average('iops-write'),
    ...(group !== undefined && { group: group.name }),
  };
}

function imageRecord(node: BlockNode, flat: boolean): ImageRecord {
  const info = driverInfo(node);
  const actual = allocatedSize(node);
  const snapshots = snapshotsIn(node).map(snapshotRecord);
  const below = flat ? undefined : backingImage(node);
  return {
    filename: node.filename,
    format: node.driver.name,
    'virtual-size': alignUp(node.impl.length(), SECTOR),
    ...(actual !== undefined && { 'actual-size': actual }),
    ...(info?.clusterSize !== undefined && { 'cluster-size': info.clusterSize }),
    ...(info?.encrypted === true && { encrypted: true }),
    ...(info !== undefined && { 'dirty-flag': info.dirty ?? false }),
    ...backingNames(node),
    ...(info?.specific !== undefined && { 'format-specific': info.specific }),
    ...(snapshots.length > 0 && { snapshots }),
    ...(below !== undefined && { 'backing-image': imageRecord(below, flat) }),
  };
}

function backingNames(node: BlockNode) {
  const stored = node.storedBacking;
  if (stored === undefined) return {};
  return {
    'backing-filename': stored.filename,
    'full-backing-filename': node.automaticBackingName || stored.filename,
    ...(stored.format !== '' && { 'backing-filename-format': stored.format }),
  };
}
