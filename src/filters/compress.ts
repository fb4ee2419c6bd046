/** Has all writes compressed, where the format below can do that. */
import { skipFilters } from '../core/chain.ts';
import { defineFilter } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import { invariant } from '../core/invariant.ts';
import { Link } from '../core/node.ts';

export const compress = defineFilter<Record<never, never>>({
  name: 'compress',
  summary: 'Has all writes compressed by the format below',
  options: {},
  async open({ file, node }) {
    invariant(file instanceof Link, 'a child is a link');
    // No format here compresses what it writes. Filters are skipped, since they could not pass the wish on.
    const format = skipFilters(file.node).driver.name;
    throw new BlockError('ENOTSUP', `Compression is not supported for underlying format: ${format}`, { node });
  },
});
