/** Compressing a cluster (Q-MAP-6): by the host's threads where it has them. */
import { deflateRaw } from '../../bytes/deflate.ts';
import { CompressionType } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { encodeZstd } from './zstd.ts';

/** Compresses into `target`; resolves with the bytes it takes, or -1: it does not fit. */
export async function compressCluster(
  { host, header }: Pick<Qcow2Image, 'host' | 'header'>,
  cluster: Uint8Array,
  target: Uint8Array,
): Promise<number> {
  if (header.compressionType === CompressionType.zstd) return encodeZstd(host, cluster, target);
  return host.deflateRaw === undefined ? deflateRaw(cluster, target) : host.deflateRaw(cluster, target);
}
