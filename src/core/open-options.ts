/** What a caller may ask for when it opens a disk, and what permissions follow from it. */
import type { CacheMode, DiscardMode } from './cache.ts';
import type { HostContext } from './host.ts';
import type { BlockNode } from './node.ts';
import type { NestedOptions } from './options.ts';
import { ALL_PERMISSIONS, Permission, type Permissions } from './permissions.ts';

/** How a disk is opened. Without any: to be read only, by the format that its content shows. */
export interface OpenOptions {
  /** Driver of the top node. Default: what the options say, else guessed from the content. */
  readonly format?: string | undefined;
  /** Options of the top node, for one that is opened by its name: `{ 'encrypt.key-secret': 's0' }`. */
  readonly driverOptions?: NestedOptions | undefined;
  /** Default false. */
  readonly writable?: boolean;
  /** Default `writeback`. */
  readonly cache?: CacheMode;
  /** Default `unmap`: discards and unmapping zero writes free storage. */
  readonly discard?: DiscardMode;
  /** Turn writes of zeroes into zero writes. Default `off`. */
  readonly detectZeroes?: 'off' | 'on' | 'unmap';
  /** Open even though others write; read-only opens only (BL-OPEN-23). */
  readonly forceShare?: boolean;
  /** Nobody else may write while this is open for reading. Default false: readers share everything. */
  readonly noWriters?: boolean;
  readonly nodeName?: string;
  /** Only information is wanted: no data will be read. */
  readonly noIO?: boolean;
  /** For a check: damage is no reason to refuse. */
  readonly checkOnly?: boolean;
  /** To save what can be saved: tolerate damage where reading can go on. */
  readonly salvage?: boolean;
  /** Leave out the backing file that the image names. */
  readonly noBacking?: boolean;
  /** Another program still has the image: nothing is written before it is activated (BL-OPEN-9, BL-MISC-3). */
  readonly inactive?: boolean;
  /** All writes go to a temporary overlay, and are gone when it is closed (BL-OPEN-28). */
  readonly snapshot?: boolean;
  /** Copy to the image what is read from those below it; writable opens only (BL-OPEN-24). */
  readonly copyOnRead?: boolean;
  /** Opens it in this context of the host, with all below it (BL-CTX). Default: the main one. */
  readonly context?: HostContext | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Readers share everything, unless asked not to; a writer lets nobody else write or resize. */
export function permissionsFor(node: BlockNode, { writable = false, noWriters = false }: OpenOptions): Permissions {
  const need = (node.settings.noIO ? 0 : Permission.consistentRead) | (writable ? Permission.write : 0);
  const shareAll = node.settings.forceShare || !(writable || noWriters);
  return { need, share: shareAll ? ALL_PERMISSIONS : ALL_PERMISSIONS & ~(Permission.write | Permission.resize) };
}

/** What is left of permissions while another program has the image. */
export function readingOnly({ need, share }: Permissions): Permissions {
  return { need: need & Permission.consistentRead, share };
}
