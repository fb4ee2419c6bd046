/** Compressing a cluster (Q-MAP-6): by the host's threads where it has them. */
import { deflateRaw } from '../../bytes/deflate.ts';
import { CompressionType } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { encodeZstd } from './zstd.ts';

/** The compressed bytes of a whole cluster; undefined where they are no fewer than the cluster's. */
export async function compressCluster(image: Qcow2Image, cluster: Uint8Array): Promise<Uint8Array | undefined> {
  const { host, header } = image;
  const target = new Uint8Array(cluster.length - 1);
  let length: number;
  if (header.compressionType === CompressionType.zstd) length = await encodeZstd(host, cluster, target);
  else length = host.deflateRaw === undefined ? deflateRaw(cluster, target) : await host.deflateRaw(cluster, target);
  return length < 0 ? undefined : target.subarray(0, length);
}
