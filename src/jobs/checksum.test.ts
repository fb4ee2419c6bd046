import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { bytesWith, makeImage, randomBytes, withDisk, world } from '../../tests/support/job-disks.ts';
import { type Checksum, type ChecksumOptions, checksum } from './checksum.ts';

const MIB = 1 << 20;

async function sumOf(format: string, bytes: Uint8Array, options: ChecksumOptions = {}): Promise<Checksum> {
  const made = world({ record: false });
  await makeImage(made.graph, '/disk', format, bytes);
  return withDisk(made.graph, '/disk', { format }, (disk) => checksum(disk, options));
}

function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return new Uint8Array(hash.digest());
}

/** The scheme as its description has it, the plain way, from the digests of the leaves. */
function fromLeaves(leaves: readonly Uint8Array[], length: number): string {
  let level = leaves;
  while (level.length > 1) {
    const above: Uint8Array[] = [];
    for (let at = 0; at < level.length; at += 1024) above.push(sha256(...level.slice(at, at + 1024)));
    level = above;
  }
  const size = new Uint8Array(8);
  new DataView(size.buffer).setBigUint64(0, BigInt(length), true);
  const name = new TextEncoder().encode('diskwright-tree-sha256-1\0');
  return Buffer.from(sha256(name, size, level[0] ?? new Uint8Array(0))).toString('hex');
}

function reference(bytes: Uint8Array): string {
  const padded = new Uint8Array(Math.ceil(bytes.length / 512) * 512);
  padded.set(bytes);
  const leaves: Uint8Array[] = [];
  for (let at = 0; at === 0 || at < padded.length; at += MIB) leaves.push(sha256(padded.subarray(at, at + MIB)));
  return fromLeaves(leaves, padded.length);
}

describe('the scheme', () => {
  test.each([0, 512, MIB - 512, MIB, MIB + 512, 5 * MIB])('of %i random bytes', async (length) => {
    const bytes = randomBytes(length, length);
    expect((await sumOf('raw', bytes)).digest).toBe(reference(bytes));
  });

  test('does not change: checksums are kept and compared later', async () => {
    const fixed = (length: number) => Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 9)) & 255);
    expect(await sumOf('raw', new Uint8Array(0))).toEqual({
      scheme: 'diskwright-tree-sha256-1',
      size: 0,
      digest: '5638dbf15c850961317004e516e38ad27a7a904b21e742ce5cc38f8622f8bc03',
    });
    expect((await sumOf('raw', fixed(3 * MIB + 1024))).digest).toBe(
      'bd66b2a659338f3dda28527ebe3b56e2f5782088620c3083ba87b2cd4a93bad2',
    );
  });

  test('of a disk whose length is no multiple of 512 covers zeroes to the next', async () => {
    const made = world();
    const bytes = bytesWith(1000, [[0, 1000]]);
    made.host.put('/odd', bytes);
    const odd = await withDisk(made.graph, '/odd', { format: 'raw' }, (disk) => checksum(disk));
    expect(odd.size).toBe(1024);
    expect(odd.digest).toBe(reference(bytes));
  });

  test('has a second level of digests above 1024 leaves, partly full', async () => {
    const size = 1026 * MIB + 512;
    const { graph } = world();
    const disk = await graph.open({ driver: 'raw', file: { driver: 'memory', size } }, { writable: true });
    const leaves = Array.from({ length: 1026 }, () => sha256(new Uint8Array(MIB)));
    for (const leaf of [1, 1025]) {
      const bytes = bytesWith(MIB, [[leaf, 5000]]);
      await disk.write(leaf * MIB, bytes);
      leaves[leaf] = sha256(bytes);
    }
    const last = bytesWith(512, [[511, 1]]);
    await disk.write(size - 512, last);
    expect((await checksum(disk)).digest).toBe(fromLeaves([...leaves, sha256(last)], size));
    await disk.close();
  });
});

describe('equal content', () => {
  test('has an equal checksum in any format, stored or not', async () => {
    const bytes = randomBytes(7 * MIB, 5);
    const sums = await Promise.all([sumOf('raw', bytes), sumOf('vdi', bytes)]);
    const made = world();
    made.host.put('/stored', bytes);
    sums.push(await withDisk(made.graph, '/stored', { format: 'raw' }, (disk) => checksum(disk)));
    expect(new Set(sums.map(({ digest }) => digest)).size).toBe(1);
  });

  test('of another size has another one', async () => {
    const [a, b] = await Promise.all([sumOf('raw', new Uint8Array(MIB)), sumOf('raw', new Uint8Array(2 * MIB))]);
    expect(a.digest).not.toBe(b.digest);
  });

  test('but for one bit has another one', async () => {
    const bytes = randomBytes(3 * MIB, 9);
    const other = bytes.slice();
    other[2 * MIB + 77] = (other[2 * MIB + 77] ?? 0) ^ 4;
    expect((await sumOf('raw', bytes)).digest).not.toBe((await sumOf('raw', other)).digest);
  });
});

test('a disk of 8 TiB with nothing stored takes no reading', async () => {
  const made = world();
  made.host.put('/huge', 8 * 2 ** 40);
  await withDisk(made.graph, '/huge', { format: 'raw' }, async (disk) => {
    const before = made.host.counters.bytesRead;
    const { digest } = await checksum(disk);
    expect(digest).toMatch(/^[0-9a-f]{64}$/);
    expect(made.host.counters.bytesRead).toBe(before);
  });
});

test('content that cannot be read is an error that names the place; everything has ended then', async () => {
  const made = world({ latency: { min: 0, max: 10 } });
  made.host.put('/disk', bytesWith(12 * MIB, [[0, 12 * MIB]]));
  made.host.faults.inject({ operation: 'read', code: 'EIO', offset: 3 * MIB, length: MIB });
  await withDisk(made.graph, '/disk', { format: 'raw' }, async (disk) => {
    await expect(checksum(disk)).rejects.toMatchObject({
      code: 'EIO',
      message: 'error while reading at byte 3145728: Input/output error',
    });
  });
  expect(made.host.openFiles).toEqual([]);
});

test('progress ends at the size; an abort stops it', async () => {
  const controller = new AbortController();
  const seen: number[] = [];
  await sumOf('raw', randomBytes(4 * MIB, 3), {
    progress(done, total) {
      expect(total).toBe(4 * MIB);
      seen.push(done);
    },
  });
  expect(seen.at(-1)).toBe(4 * MIB);
  const stopped = sumOf('raw', bytesWith(20 * MIB, [[0, 20 * MIB]]), {
    signal: controller.signal,
    progress: (done) => done > 0 && controller.abort('enough'),
  });
  await expect(stopped).rejects.toBe('enough');
});
