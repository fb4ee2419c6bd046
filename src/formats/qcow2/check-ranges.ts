/** Ranges of the image file that extensions name. */
import { alignUp } from '../../bytes/align.ts';
import type { Extensions } from './extensions.ts';

/** The encryption header, in whole clusters; of length 0 where there is none. */
export function encryptionRange({ encryption }: Extensions, clusterSize: number): { offset: number; length: number } {
  if (encryption === undefined) return { offset: 0, length: 0 };
  return { offset: Number(encryption.offset), length: alignUp(Number(encryption.length), clusterSize) };
}
