/** The decompression test of a check (Q-CHK-6). */
import { beforeAll, describe, expect, test } from 'vitest';
import { CLUSTER, checkImage, checkWhole } from '../../../tests/support/qcow2-checks.ts';
import { firstL2, makeImage, PATH, patchWords, some, useDisk, wordsAt } from '../../../tests/support/qcow2-image.ts';
import type { SimHost } from '../../testing/index.ts';
import { compressedPlace } from './tables.ts';

const CLUSTERS = 200;

/** Every cluster is different and compresses. */
function content(): Uint8Array {
  const bytes = new Uint8Array(CLUSTERS * CLUSTER);
  for (let cluster = 0; cluster < CLUSTERS; cluster++) bytes.set(some(cluster + 1, 300), cluster * CLUSTER);
  return bytes;
}

function packed(host: SimHost, index: number) {
  const [entry = 0n] = wordsAt(host, firstL2(host) + index * 8);
  return compressedPlace(Number(entry >> 32n), Number(entry & 0xffffffffn), 12);
}

/** The first bytes of a stream: no block of deflate has this type, and no frame of zstd this number. */
async function spoil(host: SimHost, index: number): Promise<string> {
  const { offset } = packed(host, index);
  await patchWords(host, offset, 0xffff_ffff_ffff_ffffn);
  return `0x${offset.toString(16)}`;
}

describe.each(['zlib', 'zstd'])('compressed clusters of %s', (compression_type) => {
  let host: SimHost;
  const places: string[] = [];
  beforeAll(async () => {
    host = await makeImage({ cluster_size: CLUSTER, compression_type }, { size: CLUSTERS * CLUSTER });
    await useDisk(host, (disk) => disk.write(0, content(), { compressed: true }));
    expect(await checkImage(host, { decompress: true })).toMatchObject({ lines: [], report: { corruptions: 0 } });
    for (const index of [3, 150]) places.push(await spoil(host, index));
  });

  test('those that do not decompress are told with their guest ranges, on demand only', async () => {
    expect(await checkImage(host)).toMatchObject({ lines: [], report: { corruptions: 0 } });
    const { lines, report } = await checkImage(host, { decompress: true });
    expect(lines).toEqual([
      `ERROR compressed cluster at host offset ${places[0]}, guest offset 0x3000 length 4096, cannot be decompressed`,
      `ERROR compressed cluster at host offset ${places[1]}, guest offset 0x96000 length 4096, cannot be decompressed`,
    ]);
    expect(report).toMatchObject({ corruptions: 2, leaks: 0, checkErrors: 0, compressedClusters: CLUSTERS });
  });

  test('nothing mends them', async () => {
    const { report, repaired } = await checkWhole(host, { repair: 'all', decompress: true });
    expect(repaired).toBeUndefined();
    expect(report).toMatchObject({ corruptions: 2, corruptionsFixed: 0 });
  });
});

test('what only a snapshot has is looked at, and what it shares is told of once', async () => {
  const host = await makeImage({ cluster_size: CLUSTER }, { size: CLUSTERS * CLUSTER });
  await useDisk(host, async (disk) => {
    await disk.write(0, content(), { compressed: true });
    await disk.snapshots.create('s');
  });
  const place = await spoil(host, 7);
  await useDisk(host, (disk) => disk.write(7 * CLUSTER, some(1, CLUSTER)));
  const { lines, report } = await checkImage(host, { decompress: true });
  expect(lines).toEqual([
    `ERROR compressed cluster at host offset ${place}, guest offset 0x7000 length 4096 of snapshot 1 (s), cannot be decompressed`,
  ]);
  expect(report.corruptions).toBe(1);
});

test('what cannot be read is an error of the check, and an abort ends it', async () => {
  const host = await makeImage({ cluster_size: CLUSTER }, { size: CLUSTERS * CLUSTER });
  await useDisk(host, (disk) => disk.write(0, content(), { compressed: true }));
  const abort = new AbortController();
  const progress = (done: number, total: number) => {
    if (done > total / 2) abort.abort(new Error('enough'));
  };
  await expect(checkImage(host, { decompress: true, progress, signal: abort.signal })).rejects.toThrow('enough');
  const { offset } = packed(host, 9);
  host.faults.inject({ operation: 'read', code: 'EIO', path: PATH, offset, length: 1 });
  const { lines, report } = await checkImage(host, { decompress: true });
  expect(lines).toContain(
    `ERROR compressed cluster at host offset 0x${offset.toString(16)}, guest offset 0x9000 length 4096, cannot be read`,
  );
  expect(report).toMatchObject({ corruptions: 0 });
  expect(report.checkErrors).toBeGreaterThan(0);
});
