/** How large an image would be (T-MEAS-1). */
import type { MeasureContext, Measurement } from '../../core/driver.ts';
import { newHeader, type VdiCreateOptions } from './create.ts';
import { ImageType } from './header.ts';

/** A block is stored whole when anything in it is; of a size alone nothing is stored yet. */
export async function measure({ options, size, extents }: MeasureContext<VdiCreateOptions>): Promise<Measurement> {
  // What is random in a header takes the same room whatever it is.
  const { blockSize, blocks, dataOffset, type } = newHeader({ ...options, size }, () => {});
  const fullyAllocated = dataOffset + blocks * blockSize;
  if (type === ImageType.static) return { required: fullyAllocated, fullyAllocated };
  let stored = 0;
  let next = 0;
  for await (const { offset, length, zero } of extents ?? []) {
    if (zero || length === 0) continue;
    const first = Math.max(next, Math.floor(offset / blockSize));
    next = Math.max(next, Math.ceil((offset + length) / blockSize));
    stored += Math.max(0, next - first);
  }
  return { required: dataOffset + stored * blockSize, fullyAllocated };
}
