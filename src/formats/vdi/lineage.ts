/**
 * Whether the image below is the one that a differencing image was made over, and as it was then (V-50): it is warned of
 * when not, and nothing is written down into it.
 */
import { firstDifference } from '../../bytes/difference.ts';
import { formatUuid, parseUuid } from '../../bytes/uuid.ts';
import { isZero } from '../../bytes/zero.ts';
import type { Child, DriverInfo } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import type { Host } from '../../core/host.ts';
import { isOldLayout, type VdiHeader } from './header.ts';

export interface LineageParts {
  readonly header: VdiHeader;
  readonly filename: () => string;
  readonly host: Host;
  readonly node: string;
  readonly parent: () => Child | undefined;
  readonly parentInfo: () => DriverInfo | undefined;
}

export class Lineage {
  readonly #parts: LineageParts;
  /** The parent that was last looked at, and the state it was found in. */
  #seen: string | undefined;
  #trouble: string | undefined;
  /** At opening it is warned; later links change before headers do, as in a rebase, and then all fits in the end. */
  #opened = false;

  constructor(parts: LineageParts) {
    this.#parts = parts;
  }

  /**
   * Compares when another image is below than before; the same one may change meanwhile, as by a commit. With `again`,
   * in any case. At opening, says what does not fit.
   */
  look(again = false): void {
    const { parent, parentInfo, host, header } = this.#parts;
    const child = parent();
    const uuids = child && uuidsOf(parentInfo());
    const seen = uuids && `${child.filename()} ${uuids.uuid}`;
    const warn = !this.#opened;
    this.#opened = true;
    if (seen === this.#seen && !again) return;
    this.#seen = seen;
    this.#trouble = child && uuids && this.#compare(header, child, uuids);
    if (this.#trouble !== undefined && warn) host.warn(`warning: ${this.#trouble}`);
  }

  /** Throws EPERM when what is stored above does not fit what would be written into. */
  require(): void {
    const { node, filename, parent } = this.#parts;
    if (this.#trouble === undefined) return;
    const text = `Cannot write to '${parent()?.filename()}' below '${filename()}': ${this.#trouble}`;
    throw new BlockError('EPERM', text, { node });
  }

  /** The parent, if it is the recorded one in its recorded state. */
  trusted(): Child | undefined {
    const { header, parent } = this.#parts;
    return this.#seen === undefined || this.#trouble !== undefined || isZero(header.linkUuid) ? undefined : parent();
  }

  #compare(header: VdiHeader, child: Child, { uuid, modification }: ParentUuids): string | undefined {
    if (isZero(header.linkUuid)) return undefined;
    const own = this.#parts.filename();
    const link = formatUuid(header.linkUuid);
    if (uuid !== link) {
      return `'${child.filename()}' is not the parent of '${own}': its UUID is ${uuid}, not ${link}`;
    }
    // Version 0.2 does not tell.
    if (isOldLayout(header) || modification === formatUuid(header.parentUuid)) return undefined;
    return `'${child.filename()}' was changed after '${own}' was made over it: its modification UUID is ${modification}, not ${formatUuid(header.parentUuid)}`;
  }
}

interface ParentUuids {
  readonly uuid: string;
  readonly modification: string;
}

/** Of a VDI; of other images nothing is compared. */
export function uuidsOf(info: DriverInfo | undefined): ParentUuids | undefined {
  if (info?.specific?.type !== 'vdi') return undefined;
  const { uuid, 'modification-uuid': modification } = info.specific.data;
  return { uuid: String(uuid), modification: String(modification) };
}

/** As headers hold them. */
export interface StoredUuids {
  readonly uuid: Uint8Array;
  readonly modificationUuid: Uint8Array;
}

export function storedUuidsOf(info: DriverInfo | undefined): StoredUuids | undefined {
  const told = uuidsOf(info);
  const uuid = told && parseUuid(told.uuid);
  const modificationUuid = told && parseUuid(told.modification);
  return uuid && modificationUuid && { uuid, modificationUuid };
}

export function sameUuid(a: Uint8Array, b: Uint8Array): boolean {
  return firstDifference(a, b) < 0;
}
