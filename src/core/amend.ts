/** Changing the format options of an existing image (BL-INFO-15). */
import type { AmendOptions } from './driver.ts';
import { BlockError } from './errors.ts';
import type { BlockNode } from './node.ts';
import type { OptionTree } from './options.ts';
import * as request from './request.ts';

/** Throws BlockError: ENOTSUP where the format cannot. The node must be drained. */
export async function amend(node: BlockNode, options: OptionTree, how: AmendOptions = {}): Promise<void> {
  if (!node.isOpen) throw new BlockError('ENOMEDIUM', 'Node is ejected', { node: node.name });
  const { impl, driver } = node;
  if (impl.amend === undefined) {
    const text = `Block driver '${driver.name}' does not support option amendment`;
    throw new BlockError('ENOTSUP', text, { node: node.name });
  }
  try {
    await impl.amend(options, how);
  } finally {
    node.writeGeneration++;
    request.refreshLimits(node);
    request.noteLength(node);
  }
}
