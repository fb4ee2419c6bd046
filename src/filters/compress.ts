/** Has all writes compressed, where the format below can do that. */
import { refusesCompressed } from '../core/compressed-write.ts';
import { type DriverNode, defineFilter } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import { invariant } from '../core/invariant.ts';
import { Link } from '../core/node.ts';

export const compress = defineFilter<Record<never, never>>({
  name: 'compress',
  summary: 'Has all writes compressed by the format below',
  options: {},
  async open({ file, node }): Promise<Partial<DriverNode>> {
    invariant(file instanceof Link, 'a child is a link');
    const refusing = refusesCompressed(file.node);
    if (refusing !== undefined) {
      const text = `Compression is not supported for underlying format: ${refusing.driver.name}`;
      throw new BlockError('ENOTSUP', text, { node });
    }
    return {
      write: (offset, source) => writeInside(file, offset, source),
      // Parts of clusters are read, changed and written whole, by the core.
      limits() {
        const below = file.limits();
        const align = (own: number) => Math.max(own, below.compressUnit);
        const { requestAlign, zeroAlign, discardAlign } = below;
        return {
          ...below,
          requestAlign: align(requestAlign),
          zeroAlign: align(zeroAlign),
          discardAlign: align(discardAlign),
          compressUnit: 0,
        };
      },
    };
  },
});

/** What alignment added behind the disk's end is left out. */
function writeInside(file: Link, offset: number, source: Uint8Array): Promise<void> {
  const inside = Math.min(source.length, file.length() - offset);
  return file.write(offset, inside === source.length ? source : source.subarray(0, inside), { compressed: true });
}
