/** File names that images hold, made absolute or relative to where the image lies (BL-NAME-3 to 6). POSIX rules. */
import { BlockError } from './errors.ts';
import { protocolPrefix } from './filename.ts';
import type { BlockNode } from './node.ts';

export function isAbsoluteName(name: string): boolean {
  return name.startsWith('/');
}

/** `name` seen from the folder of `base`: an absolute name is the result (BL-NAME-4). */
export function combineNames(base: string, name: string): string {
  if (isAbsoluteName(name)) return name;
  return folderOf(base) + name;
}

/** All of a name up to its last slash; the colon of a protocol prefix ends a folder too. */
function folderOf(name: string): string {
  const prefix = protocolPrefix(name);
  return name.slice(0, Math.max(name.lastIndexOf('/'), prefix === undefined ? -1 : prefix.length) + 1);
}

/** A backing name as the image `backed` means it (BL-NAME-5). Throws BlockError EINVAL where there is no folder. */
export function resolveBackingName(backed: string, backing: string): string {
  if (backing === '' || protocolPrefix(backing) !== undefined || isAbsoluteName(backing)) return backing;
  if (backed === '' || backed.startsWith('json:')) {
    throw new BlockError('EINVAL', `Cannot use relative backing file names for '${backed}'`);
  }
  return combineNames(backed, backing);
}

/** A name stored in the image of `node`, resolved against the folder the node lies in (BL-NAME-6). Throws BlockError. */
export function resolveStoredName(node: BlockNode, stored: string): string {
  if (stored === '' || protocolPrefix(stored) !== undefined || isAbsoluteName(stored)) return stored;
  return nodeFolder(node) + stored;
}

/** The folder of the first plain name down the primary children; with a slash at its end, or empty. */
export function nodeFolder(node: BlockNode): string {
  const { primary, driver } = node;
  const hasNone = driver.kind === 'filter' && driver.noFolder === true;
  if (primary !== undefined && driver.kind !== 'protocol' && !hasNone) return nodeFolder(primary.node);
  if (!node.isOpen) throw new BlockError('ENOMEDIUM', `Node '${node.name}' is ejected`, { node: node.name });
  if (hasNone || node.exactName === '') {
    throw new BlockError('ENOTSUP', `Cannot generate a base directory for ${driver.name} nodes`, {
      node: node.name,
    });
  }
  return folderOf(node.exactName);
}
