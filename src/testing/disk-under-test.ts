/** What the kit asks of a disk, so that one that misbehaves on purpose can stand in for it. */
import type { Disk } from '../core/disk.ts';

/** The part of {@link Disk} that trials use. */
export type DiskUnderTest = Pick<
  Disk,
  | 'length'
  | 'writable'
  | 'read'
  | 'tryReadNow'
  | 'write'
  | 'tryWriteNow'
  | 'writeZeroes'
  | 'discard'
  | 'flush'
  | 'status'
  | 'tryStatusNow'
  | 'resize'
  | 'check'
  | 'close'
>;
