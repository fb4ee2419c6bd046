/** An export: a disk or a window of it under a name, as clients see it (N-24, N-30, N-62, N-70, N-71). */
import { bitmapListOf } from '../../bitmaps/bitmaps.ts';
import type { DirtyBitmap } from '../../bitmaps/dirty-bitmap.ts';
import type { Disk } from '../../core/disk.ts';
import { BlockError } from '../../core/errors.ts';
import type { BlockNode } from '../../core/node.ts';
import { STRING_MAX, TransmissionFlag } from '../protocol.ts';
import type { ExportInfo } from './export-info.ts';
import { allocationContext, bitmapContext, depthContext, type MetaContext } from './meta-context.ts';

/** How a disk is offered. */
export interface ExportOptions {
  /** What clients ask for, up to 4096 bytes of UTF-8. Default: the empty name. */
  readonly name?: string;
  /** By which the server's owner calls it. Default: the name. */
  readonly id?: string;
  /** A text for people who list exports. */
  readonly description?: string;
  /** Default: as the disk was opened. */
  readonly readOnly?: boolean;
  /** A window of the disk, bytes. Default: from its start to its end. */
  readonly offset?: number;
  readonly size?: number;
  /** Offers the context `qemu:allocation-depth`. */
  readonly allocationDepth?: boolean;
  /** Offers `qemu:dirty-bitmap:NAME` for each; the bitmaps are busy as long. */
  readonly bitmaps?: readonly string[];
  /** Tells clients that the disk has to be waited for as a turning one has. Default false. */
  readonly rotational?: boolean;
  /** Clients that ask for the empty name get this one (N-25). */
  readonly default?: boolean;
}

const BLOCK_MIN_MAX = 65536;
const BLOCK_PREFERRED_MIN = 4096;

/** A disk that an {@link NbdServer} offers; made by its `addExport`. */
export class NbdExport {
  readonly id: string;
  readonly isDefault: boolean;
  readonly disk: Disk;
  readonly offset: number;
  readonly info: ExportInfo;
  readonly contexts: readonly MetaContext[];
  readonly #busy: readonly DirtyBitmap[];

  /** Throws BlockError, EINVAL for what makes no sense, EACCES for a read-only disk that is to be written, ENOENT for a bitmap. */
  constructor(disk: Disk, options: ExportOptions, shared: boolean) {
    const { name = '', description = '', readOnly = !disk.writable, offset = 0 } = options;
    this.id = options.id ?? name;
    this.isDefault = options.default ?? false;
    this.disk = disk;
    this.offset = offset;
    checkText('name', name);
    checkText('description', description);
    const length = exactLength(disk.node);
    if (!(offset >= 0 && offset <= length)) {
      const text = `Export offset ${offset} is past the end of '${disk.filename}', which has ${length} bytes`;
      throw new BlockError('EINVAL', text);
    }
    const { size = length - offset } = options;
    if (!(size >= 0 && offset + size <= length)) {
      const text = `Export of ${size} bytes at ${offset} is larger than '${disk.filename}', which has ${length}`;
      throw new BlockError('EINVAL', text);
    }
    if (!readOnly && !disk.writable) throw new BlockError('EACCES', 'Cannot export read-only node as writable');
    const bitmaps = (options.bitmaps ?? []).map((wanted) => requireBitmap(disk.node, wanted));
    this.contexts = [
      allocationContext(disk),
      ...(options.allocationDepth ? [depthContext(disk)] : []),
      ...bitmaps.map((bitmap) => bitmapContext(bitmap.name ?? '', bitmap)),
    ];
    const minimumBlock = minimumBlockOf(disk, offset, size);
    this.info = {
      name,
      description,
      size,
      flags: flagsOf({ readOnly, rotational: options.rotational === true, shared }),
      minimumBlock,
      preferredBlock: Math.max(BLOCK_PREFERRED_MIN, minimumBlock, preferredOf(disk)),
      contexts: this.contexts.map((context) => context.name),
    };
    for (const bitmap of bitmaps) bitmap.busy = true;
    this.#busy = bitmaps;
  }

  /** Lets go of the bitmaps. */
  close(): void {
    for (const bitmap of this.#busy) bitmap.busy = false;
  }
}

function checkText(what: string, text: string): void {
  if (new TextEncoder().encode(text).length > STRING_MAX) {
    throw new BlockError('ENAMETOOLONG', `export ${what} '${text}' too long`);
  }
  if (text.includes('\0')) throw new BlockError('EINVAL', `export ${what} holds a NUL character`);
}

/**
 * The node's length in bytes. Formats that only pass on what is below them complete it to whole sectors; what is behind
 * the end there is nothing of the file's (N-71).
 */
function exactLength(node: BlockNode): number {
  const length = node.impl.length();
  const below = node.filtered ?? node.primary;
  const place = length === 0 ? undefined : node.impl.place?.(0, 1);
  if (below === undefined || (node.driver.kind !== 'filter' && place?.child !== below.name)) return length;
  const inside = exactLength(below.node) - (place?.offset ?? 0);
  return inside < length && length - inside < 512 ? inside : length;
}

/** That of the highest layer that has one of this name. */
function findBitmap(top: BlockNode, name: string): DirtyBitmap | undefined {
  for (let node: BlockNode | undefined = top; node !== undefined; node = (node.filtered ?? node.backing)?.node) {
    const found = bitmapListOf(node).find(name);
    if (found !== undefined) return found;
  }
  return undefined;
}

function requireBitmap(top: BlockNode, name: string): DirtyBitmap {
  const found = findBitmap(top, name);
  if (found === undefined) throw new BlockError('ENOENT', `Bitmap '${name}' is not found`);
  found.requireUsable('readOnly');
  return found;
}

/** Whether an export of the disk could offer a bitmap of this name. */
export function hasBitmap({ node }: Disk, name: string): boolean {
  return findBitmap(node, name) !== undefined;
}

function flagsOf({
  readOnly,
  rotational,
  shared,
}: {
  readonly readOnly: boolean;
  readonly rotational: boolean;
  readonly shared: boolean;
}): number {
  const flag = TransmissionFlag;
  const changes = flag.sendTrim | flag.sendWriteZeroes | flag.sendFastZero;
  return (
    flag.hasFlags |
    flag.sendFlush |
    flag.sendFua |
    flag.sendCache |
    (readOnly ? flag.readOnly : changes) |
    (rotational ? flag.rotational : 0) |
    (shared ? flag.canMultiConn : 0)
  );
}

/** A power of two that divides the size and the place where the window begins, so that the client can reach all of it. */
function minimumBlockOf(disk: Disk, offset: number, size: number): number {
  let block = Math.min(BLOCK_MIN_MAX, disk.limits.requestAlign);
  while (size % block !== 0 || offset % block !== 0) block /= 2;
  return block;
}

function preferredOf({ limits }: Disk): number {
  const preferred = Math.min(BLOCK_MIN_MAX, limits.preferred);
  return preferred > 0 ? 2 ** Math.floor(Math.log2(preferred)) : 0;
}
