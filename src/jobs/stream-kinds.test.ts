/** Images written front to back that are compressed, encrypted, or over another: sound, complete, and as long as was said. */
import { describe, expect, test } from 'vitest';
import { readQcow2 } from '../../tests/support/qcow2-bytes.ts';
import { graphOn } from '../../tests/support/sim-disks.ts';
import { createImage } from '../core/create.ts';
import type { Graph } from '../core/graph.ts';
import type { OptionTree } from '../core/options.ts';
import { secrets } from '../crypto/secrets.ts';
import { nodeCrypto } from '../node/crypto.ts';
import { differsAt } from '../testing/compare-bytes.ts';
import { operationData } from '../testing/disk-operations.ts';
import { SimHost } from '../testing/index.ts';
import { Spool } from './spool.ts';
import { type StreamOptions, streamImage } from './stream.ts';

const LENGTH = (600 << 10) + 1536;

/** Zeroes, text, and what does not get shorter. */
function mixedContent(length: number): Uint8Array {
  const content = new Uint8Array(length);
  for (let at = 0, turn = 0; at < length; at += 20_480, turn++) {
    const part = content.subarray(at, at + 20_480);
    if (turn % 3 === 1) part.set(new TextEncoder().encode(`line ${turn} `.repeat(2048)).subarray(0, part.length));
    if (turn % 3 === 2) part.set(operationData(turn, part.length));
  }
  return content;
}

function hostWith(content: Uint8Array): SimHost {
  const host = new SimHost({ record: false });
  host.put('/source.raw', content);
  Object.assign(host, { crypto: nodeCrypto });
  secrets(host).set('s0', 'open sesame');
  return host;
}

async function streamed(graph: Graph, source: string, asked: Omit<StreamOptions, 'sources'>): Promise<Uint8Array> {
  const disk = await graph.open(source);
  const image = await streamImage(graph, { ...asked, sources: [disk] });
  try {
    const pieces: Uint8Array[] = [];
    for await (const piece of image.pieces()) pieces.push(piece.slice());
    const bytes = new Uint8Array(Buffer.concat(pieces));
    expect(bytes.length).toBe(image.length);
    return bytes;
  } finally {
    await image.close();
    await disk.close();
  }
}

/** What the driver reads of it, before and after a write. */
async function expectUsable(host: SimHost, bytes: Uint8Array, content: Uint8Array, options: OptionTree = {}) {
  host.put('/made.qcow2', bytes);
  const disk = await graphOn(host).open('/made.qcow2', { format: 'qcow2', writable: true, driverOptions: options });
  expect(differsAt(await disk.read(0, content.length), content)).toBe(-1);
  await disk.write(3 * 4096 + 512, new Uint8Array(1024).fill(9));
  const after = content.slice();
  after.fill(9, 3 * 4096 + 512, 3 * 4096 + 1536);
  expect(differsAt(await disk.read(0, content.length), after)).toBe(-1);
  await disk.close();
  expect(readQcow2(host.contents('/made.qcow2')).problems).toEqual([]);
}

describe('Q-BEY-2: compressed in one pass', () => {
  const plans: readonly OptionTree[] = [
    {},
    { cluster_size: 512, refcount_bits: 2 },
    { cluster_size: 4096, refcount_bits: 1 },
    { cluster_size: 4096, compat: '0.10' },
    { cluster_size: 16384, extended_l2: true },
    { cluster_size: 4096, compression_type: 'zstd' },
    { cluster_size: 2097152 },
  ];
  test.each(plans)('%j', async (options) => {
    const content = mixedContent(LENGTH);
    const host = hostWith(content);
    const bytes = await streamed(graphOn(host), '/source.raw', { format: 'qcow2', options, compress: true });
    const view = readQcow2(bytes);
    expect([view.problems, view.leaks, view.size]).toEqual([[], [], LENGTH]);
    const kinds = [...view.entries.values()].map(({ entry }) => (entry >> 62n) & 1n);
    expect(kinds).toContain(1n);
    if (options.cluster_size === 4096) expect(kinds).toContain(0n);
    await expectUsable(host, bytes, content);
  });

  test('clusters of zeroes are not stored, whatever status says; a table without others neither', async () => {
    const host = hostWith(new Uint8Array(1 << 20));
    const options = { cluster_size: 4096 };
    const bytes = await streamed(graphOn(host), '/source.raw', { format: 'qcow2', options, compress: true });
    expect(bytes.length).toBe(4 * 4096);
  });

  test('T-CONV-2: what compression does not go with is refused', async () => {
    const host = hostWith(new Uint8Array(4096));
    const encrypted = { 'encrypt.format': 'luks', 'encrypt.key-secret': 's0' };
    for (const [format, options, message] of [
      ['qcow2', encrypted, 'Compression and encryption not supported at the same time'],
      ['qcow2', { preallocation: 'full' }, 'Compression and preallocation not supported at the same time'],
      ['raw', {}, 'Compression not supported for this file format'],
    ] as const) {
      const streaming = streamed(graphOn(host), '/source.raw', { format, options, compress: true });
      await expect(streaming).rejects.toThrow(message);
    }
  });
});

describe('Q-CRYPT-4: encrypted in one pass', () => {
  test.each([{}, { cluster_size: 4096 }, { 'encrypt.cipher-alg': 'aes-128' }])('%j', async (options) => {
    const content = mixedContent(LENGTH);
    const host = hostWith(content);
    const key = { 'encrypt.format': 'luks', 'encrypt.key-secret': 's0' };
    const all = { ...options, ...key, 'encrypt.iter-time': 1 };
    const bytes = await streamed(graphOn(host), '/source.raw', { format: 'qcow2', options: all });
    const view = readQcow2(bytes);
    expect([view.problems, view.leaks]).toEqual([[], []]);
    await expectUsable(host, bytes, content, { 'encrypt.key-secret': 's0' });
  });
});

describe('T-CONV-4: over another image in one pass', () => {
  const plans: readonly (readonly [OptionTree, boolean])[] = [
    [{ cluster_size: 4096 }, false],
    [{ cluster_size: 65536 }, false],
    [{ cluster_size: 4096, compat: '0.10' }, false],
    [{ cluster_size: 16384, extended_l2: true }, false],
    [{ cluster_size: 4096 }, true],
    [{ cluster_size: 4096, compat: '0.10' }, true],
    [{ cluster_size: 16384, extended_l2: true }, true],
  ];
  test.each(plans)('%j, compressed: %s', async (options, compress) => {
    const content = mixedContent(LENGTH);
    const host = hostWith(content);
    const graph = graphOn(host);
    const backing = { filename: '/source.raw', format: 'raw' };
    const overlay = { cluster_size: 8192 };
    await createImage(graph, {
      ...{ filename: '/top.qcow2', format: 'qcow2', options: overlay, size: LENGTH },
      ...{ backingFile: backing.filename, backingFormat: backing.format },
    });
    const top = await graph.open('/top.qcow2', { format: 'qcow2', writable: true });
    await top.write(100 * 512, new Uint8Array(3 * 8192).fill(7));
    // Zeroes that hide data: stored ones, and told ones.
    await top.write(40 * 8192, new Uint8Array(8192));
    await top.writeZeroes(60 * 8192, 2 * 8192);
    const expected = await top.read(0, LENGTH);
    await top.close();
    const bytes = await streamed(graph, '/top.qcow2', { format: 'qcow2', options, backing, compress });
    const view = readQcow2(bytes);
    expect([view.problems, view.leaks]).toEqual([[], []]);
    // 32 KiB of data, one more cluster where their ends lie in others, 16 KiB of zeroes.
    expect(view.entries.size * view.clusterSize).toBeLessThanOrEqual(7 * Math.max(8192, view.clusterSize));
    expect(differsAt(view.content(content), expected)).toBe(-1);
    await expectUsable(host, bytes, expected);
  });

  test('Q-CR-2, Q-BACK-2: what cannot be is told', async () => {
    const graph = graphOn(hostWith(new Uint8Array(4096)));
    const over = (filename: string, options: OptionTree = {}) =>
      streamed(graph, '/source.raw', { format: 'qcow2', options, backing: { filename, format: 'raw' } });
    await expect(over('b', { extended_l2: true, preallocation: 'full' })).rejects.toMatchObject({ code: 'ENOTSUP' });
    await expect(over('b', { preallocation: 'full' })).rejects.toThrow('Backing file and preallocation can only');
    await expect(over('b'.repeat(1024))).rejects.toMatchObject({ code: 'EINVAL' });
  });
});

describe('a spool', () => {
  test('goes on in a file when memory is full, which is gone then', async () => {
    const host = new SimHost({ record: false });
    host.put('/var/tmp/other', 1);
    const spool = new Spool(host, 1 << 20);
    const content = operationData(5, (3 << 20) + 700);
    for (let at = 0; at < content.length; at += 300_000) await spool.append(content.subarray(at, at + 300_000));
    expect(await host.files.list('/var/tmp')).toEqual(['other']);
    const pieces: Uint8Array[] = [];
    for await (const piece of spool.pieces()) pieces.push(piece.slice());
    expect(differsAt(new Uint8Array(Buffer.concat(pieces)), content)).toBe(-1);
    await spool.close();
    expect(await host.files.list('/var/tmp')).toEqual(['other']);
  });
});
