/** Compressing and decompressing clusters (Q-MAP-6): by the host's threads where it has them. */
import { deflateRaw } from '../../bytes/deflate.ts';
import { inflateRaw } from '../../bytes/inflate.ts';
import { CompressionType } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { decodeZstd, encodeZstd } from './zstd.ts';

/** Compresses into `target`; resolves with the bytes it takes, or -1: it does not fit. */
export async function compressCluster(
  { host, header }: Pick<Qcow2Image, 'host' | 'header'>,
  cluster: Uint8Array,
  target: Uint8Array,
): Promise<number> {
  if (header.compressionType === CompressionType.zstd) return encodeZstd(host, cluster, target);
  return host.deflateRaw === undefined ? deflateRaw(cluster, target) : host.deflateRaw(cluster, target);
}

/** Decompresses each source into a whole cluster, its target, whatever follows; false: it cannot be done. */
export async function decompressClusters(
  { host, header }: Qcow2Image,
  sources: readonly Uint8Array[],
  targets: readonly Uint8Array[],
): Promise<readonly boolean[]> {
  if (header.compressionType === CompressionType.zstd) return decodeZstd(host, sources, targets);
  if (host.inflateRaw !== undefined) return host.inflateRaw(sources, targets);
  return targets.map((target, index) => inflateRaw(sources[index] ?? new Uint8Array(0), target));
}
