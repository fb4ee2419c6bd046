/** What `info` tells about a node and those below it (T-INFO-1 to T-INFO-4). */
import { alignUp } from '../../bytes/align.ts';
import { formatSize } from '../../bytes/size.ts';
import { snapshotsIn } from '../../core/disk-snapshots.ts';
import type { SnapshotInfo, SpecificData } from '../../core/driver.ts';
import { allocatedSize, driverInfo } from '../../core/info.ts';
import { hashOrder } from '../../core/key-order.ts';
import type { BlockNode } from '../../core/node.ts';
import { snapshotRecord } from '../../core/snapshot-record.ts';
import { type NamedBacking, namedBacking } from '../../jobs/backing-chain.ts';
import type { JsonObject } from './json.ts';
import { snapshotLines } from './snapshot-list.ts';

export interface ImageInfo {
  readonly filename: string;
  readonly format: string;
  /** Bytes. */
  readonly virtualSize: number;
  readonly actualSize: number | undefined;
  readonly clusterSize: number | undefined;
  readonly encrypted: boolean;
  /** Undefined when the driver reports nothing about itself. */
  readonly dirty: boolean | undefined;
  readonly backing?: NamedBacking | undefined;
  readonly snapshots?: readonly SnapshotInfo[];
  readonly specific: { readonly type: string; readonly data: SpecificData } | undefined;
  readonly children: readonly { readonly name: string; readonly info: ImageInfo }[];
}

/** Formats of which qemu-img tells nothing specific: what we tell needs no order but its own. */
const NOTHING_SPECIFIC: readonly string[] = ['vdi'];

export function imageInfo(node: BlockNode): ImageInfo {
  const info = driverInfo(node);
  return {
    filename: node.filename,
    format: node.driver.name,
    virtualSize: alignUp(node.impl.length(), 512),
    actualSize: allocatedSize(node),
    clusterSize: info?.clusterSize,
    encrypted: info?.encrypted ?? false,
    dirty: info === undefined ? undefined : (info.dirty ?? false),
    backing: namedBacking(node),
    snapshots: snapshotsIn(node),
    specific: info?.specific,
    children: node.children.map((link) => ({ name: link.name, info: imageInfo(link.node) })),
  };
}

export function infoJson(info: ImageInfo): JsonObject {
  const { snapshots = [] } = info;
  return {
    snapshots: snapshots.length > 0 ? snapshots.map((each) => ({ ...snapshotRecord(each) })) : undefined,
    'virtual-size': info.virtualSize,
    filename: info.filename,
    'cluster-size': info.clusterSize,
    format: info.format,
    'actual-size': info.actualSize,
    'format-specific': info.specific && { type: info.specific.type, data: info.specific.data },
    encrypted: info.encrypted || undefined,
    'dirty-flag': info.dirty,
    'backing-filename': info.backing?.filename,
    'full-backing-filename': info.backing?.path,
    'backing-filename-format': info.backing?.format,
    children: info.children.map(({ name, info: child }) => ({ name, info: infoJson(child) })),
  };
}

type Value = SpecificData[string];

/** The lines for people. */
export function infoLines(info: ImageInfo): string[] {
  return [
    `image: ${info.filename}`,
    `file format: ${info.format}`,
    `virtual size: ${sizeAndBytes(info.virtualSize)}`,
    ...commonLines(info),
    ...childLines(info, ''),
  ];
}

function childLines(info: ImageInfo, path: string): string[] {
  return info.children.flatMap(({ name, info: child }) => {
    const inner = `${path}/${name}`;
    const leaf = child.children.length === 0;
    const head = leaf
      ? [
          `filename: ${child.filename}`,
          `protocol type: ${child.format}`,
          `file length: ${sizeAndBytes(child.virtualSize)}`,
        ]
      : [
          `image: ${child.filename}`,
          `file format: ${child.format}`,
          `virtual size: ${sizeAndBytes(child.virtualSize)}`,
        ];
    const lines = [...head, ...commonLines(child), ...childLines(child, inner)];
    return [`Child node '${inner}':`, ...lines.map((line) => `    ${line}`)];
  });
}

function commonLines(info: ImageInfo): string[] {
  return [
    `disk size: ${info.actualSize === undefined ? 'unavailable' : formatSize(info.actualSize)}`,
    ...(info.encrypted ? ['encrypted: yes'] : []),
    ...(info.clusterSize === undefined ? [] : [`cluster_size: ${info.clusterSize}`]),
    ...(info.dirty === true ? ['cleanly shut down: no'] : []),
    ...backingLines(info.backing),
    ...snapshotLines(info.snapshots ?? []),
    ...specificLines(info),
  ];
}

function backingLines(backing: NamedBacking | undefined): string[] {
  if (backing === undefined) return [];
  const { filename, path, format } = backing;
  const place =
    path === undefined ? ' (cannot determine actual path)' : path === filename ? '' : ` (actual path: ${path})`;
  return [`backing file: ${filename}${place}`, ...(format === undefined ? [] : [`backing file format: ${format}`])];
}

/** The lines of what only this format has, with their heading; none where it has nothing. */
export function specificLines({ specific }: Pick<ImageInfo, 'specific'>): string[] {
  const lines = specific === undefined ? [] : dataLines(specific.data, !NOTHING_SPECIFIC.includes(specific.type));
  return lines.length === 0 ? [] : ['Format specific information:', ...lines.map((line) => `    ${line}`)];
}

/** T-INFO-2. `sorted`: in the order of T-FMT-4. */
function dataLines(data: SpecificData, sorted: boolean): string[] {
  const keys = Object.keys(data);
  return (sorted ? hashOrder(keys) : keys).flatMap((key) =>
    valueLines(key.replaceAll('-', ' '), data[key] ?? '', sorted),
  );
}

function valueLines(label: string, value: Value, sorted: boolean): string[] {
  if (typeof value !== 'object') return [`${label}: ${value}`];
  const inner = Array.isArray(value)
    ? value.flatMap((element: Value, index) => valueLines(`[${index}]`, element, sorted))
    : dataLines(value as SpecificData, sorted);
  return [`${label}:`, ...inner.map((line) => `    ${line}`)];
}

function sizeAndBytes(bytes: number): string {
  return `${formatSize(bytes)} (${bytes} bytes)`;
}
