/**
 * What a user of a node wants to do with it, and what it lets others do (BL-PERM-1).
 * Bits, since they are also the byte offsets of the locks that other processes see.
 */

/** What can be needed of a node, and shared: bits, to be put together by `|`. */
export const Permission = {
  /** Reads see consistent data. */
  consistentRead: 1,
  write: 2,
  /** Writes that do not change what is read. Implied by `write`. */
  writeUnchanged: 4,
  resize: 8,
} as const;

/** A set of {@link Permission} bits. */
export type PermissionSet = number;

/** No {@link Permission}. */
export const NO_PERMISSIONS: PermissionSet = 0;
/** Each {@link Permission} there is. */
export const ALL_PERMISSIONS: PermissionSet = 15;

/** One side of a link: what its user requires, and what it shares with the node's other users. */
export interface Permissions {
  readonly need: PermissionSet;
  readonly share: PermissionSet;
}

/** In bit order; the names are those of messages (BL-PERM-2, BL-PERM-7). */
export const PERMISSION_NAMES: readonly (readonly [PermissionSet, string])[] = [
  [Permission.consistentRead, 'consistent read'],
  [Permission.write, 'write'],
  [Permission.writeUnchanged, 'write unchanged'],
  [Permission.resize, 'resize'],
];

/** `consistent read, write`. */
export function permissionNames(set: PermissionSet): string {
  return PERMISSION_NAMES.filter(([bit]) => (set & bit) !== 0)
    .map(([, name]) => name)
    .join(', ');
}

/**
 * What a node does with its child (BL-TERM-5, BL-PERM-4, BL-PERM-5): `filtered` shows the child's data unchanged,
 * `image` keeps its data and its metadata there, `data` only data, `metadata` only metadata, `cow` shows through where
 * the node itself stores nothing (a backing image).
 */
export type ChildRole = 'filtered' | 'image' | 'data' | 'metadata' | 'cow';

/** What a node needs of a child in `role`, given what its own users need and share (BL-PERM-4, BL-PERM-5). */
export function childPermissions(
  role: ChildRole,
  node: { readonly writable: boolean; readonly noIO: boolean },
  wanted: Permissions,
): Permissions {
  let { need, share } = wanted;
  if (role === 'filtered') return { need, share };
  if (role === 'cow') {
    const writersToo = (share & Permission.write) !== 0 ? Permission.write | Permission.resize : 0;
    return {
      need: need & Permission.consistentRead,
      share: Permission.consistentRead | Permission.writeUnchanged | writersToo,
    };
  }
  if (role === 'image' || role === 'metadata') {
    if (node.writable) need |= Permission.write | Permission.resize;
    if (!node.noIO) need |= Permission.consistentRead;
    share &= ~(Permission.write | Permission.resize);
  }
  if (role === 'image' || role === 'data') {
    share &= ~Permission.resize;
    if ((need & Permission.writeUnchanged) !== 0) need |= Permission.write;
    if ((need & Permission.write) !== 0) need |= Permission.resize;
  }
  return { need, share };
}
