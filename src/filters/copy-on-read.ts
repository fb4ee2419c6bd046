/** Writes to the top image of a chain what is read from the images below it (BL-OPEN-24). */
import { chainOf } from '../core/chain.ts';
import { readCopying, tryReadCopying } from '../core/copy-on-read.ts';
import { defineFilter } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import { childStatus } from '../core/filter.ts';
import { invariant } from '../core/invariant.ts';
import { type BlockNode, Link } from '../core/node.ts';
import { option } from '../core/options.ts';
import { Permission } from '../core/permissions.ts';

interface CopyOnReadOptions {
  readonly bottom: string | undefined;
}

export const copyOnRead = defineFilter<CopyOnReadOptions>({
  name: 'copy-on-read',
  summary: 'Copies to an image what is read from the images below it',
  options: {
    bottom: option.text<string | undefined>({
      help: 'name of the lowest node that data are copied from',
      fallback: undefined,
    }),
  },
  async open({ options, file }) {
    invariant(file instanceof Link, 'a child is a link');
    // Told here, so that it is before anything about the options.
    if (!file.node.writable) throw new BlockError('EPERM', 'Block node is read-only', { node: file.node.name });
    const bottom = options.bottom === undefined ? undefined : bottomNode(file.node, options.bottom);
    return {
      read: (offset, target) => readCopying(file.node, offset, target, bottom),
      tryReadNow: (offset, target) => tryReadCopying(file.node, offset, target, bottom),
      writeCompressed: (offset, source) => file.write(offset, source, { compressed: true }),
      ...childStatus(file),
      childPermissions: (_child, { need, share }) => ({
        need: need | Permission.writeUnchanged,
        share: share | Permission.writeUnchanged,
      }),
    };
  },
});

function bottomNode(top: BlockNode, name: string): BlockNode {
  const found = chainOf(top).find((node) => node.name === name);
  if (found === undefined) throw new BlockError('EINVAL', `Bottom node '${name}' not found`);
  return found;
}
