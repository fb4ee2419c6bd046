/** Encrypted images (Q-CRYPT and what depends on it): made, opened, read, written, told of, given other passphrases. */
import { describe, expect, test } from 'vitest';
import { qcow2Decrypt } from '../../../tests/support/luks-bytes.ts';
import { readQcow2 } from '../../../tests/support/qcow2-bytes.ts';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import type { Disk } from '../../core/disk.ts';
import { BlockError } from '../../core/errors.ts';
import { type OptionTree, parseOptions } from '../../core/options.ts';
import { ALL_PERMISSIONS, Permission } from '../../core/permissions.ts';
import { secrets } from '../../crypto/secrets.ts';
import { convert } from '../../jobs/convert.ts';
import { nodeCrypto } from '../../node/crypto.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import { operationData } from '../../testing/disk-operations.ts';
import { SimHost, type SimHostOptions } from '../../testing/index.ts';
import { createOptions } from './create-options.ts';
import { measure } from './measure.ts';

const LUKS = { 'encrypt.format': 'luks', 'encrypt.key-secret': 's' };
const PASSPHRASE = 'open sesame';
const SIZE = 1 << 20;

function newHost(options: SimHostOptions = { record: false }): SimHost {
  const host = Object.assign(new SimHost(options), { crypto: nodeCrypto });
  secrets(host).set('s', PASSPHRASE).set('n', new TextEncoder().encode('new')).set('bad', Uint8Array.of(0xff));
  return host;
}

async function make(options: OptionTree = {}, size = SIZE, host = newHost()): Promise<SimHost> {
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size, options: { ...LUKS, ...options } });
  return host;
}

/** An image that says it is legacy AES: such are not made any more. */
async function makeAes(options: OptionTree = {}, size = SIZE): Promise<SimHost> {
  const plain = newHost();
  await createImage(graphOn(plain), { filename: PATH, format: 'qcow2', size, options });
  return withBytes(plain.contents(PATH), [[32, Uint8Array.of(0, 0, 0, 1)]]);
}

type Patch = readonly [at: number, bytes: Uint8Array];

function withBytes(bytes: Uint8Array, patches: readonly Patch[] = []): SimHost {
  for (const [at, part] of patches) bytes.set(part, at);
  const host = newHost();
  host.put(PATH, bytes);
  return host;
}

function open(
  host: SimHost,
  driverOptions: OptionTree = { 'encrypt.key-secret': 's' },
  writable = true,
): Promise<Disk> {
  return graphOn(host).open(PATH, { format: 'qcow2', writable, driverOptions });
}

async function use<T>(host: SimHost, work: (disk: Disk) => Promise<T>): Promise<T> {
  const disk = await open(host);
  try {
    return await work(disk);
  } finally {
    await disk.close();
  }
}

/** By other ciphers than ours. */
function content(host: SimHost): Uint8Array {
  const bytes = host.contents(PATH);
  const view = readQcow2(bytes);
  expect([view.problems, view.leaks]).toEqual([[], []]);
  const decrypt = qcow2Decrypt(bytes, PASSPHRASE);
  if (decrypt === undefined) throw new Error('the passphrase does not open the image');
  return view.content(undefined, decrypt);
}

const u64 = (bytes: Uint8Array, at: number) => Number(new DataView(bytes.buffer).getBigUint64(at));
/** Where the pointer to the LUKS header is, in a new image of version 3. */
const POINTER = 112;

describe('new images (Q-CR-1, Q-CR-3, Q-CRYPT-4)', () => {
  test.each([
    [{}, 65536],
    [{ cluster_size: 512 }, 512],
  ])('%j: the header of LUKS comes after the L1 table, in whole clusters', async (options, clusterSize) => {
    const bytes = (await make(options)).contents(PATH);
    const l1 = u64(bytes, 40);
    const l1Clusters = Math.ceil((new DataView(bytes.buffer).getUint32(36) * 8) / clusterSize);
    const offset = u64(bytes, POINTER + 8);
    if (clusterSize === 65536) expect(offset).toBe(l1 + l1Clusters * clusterSize);
    expect(u64(bytes, POINTER + 16)).toBe(2_068_480);
    expect(new TextDecoder('latin1').decode(bytes.subarray(offset, offset + 4))).toBe('LUKS');
    const end = offset + Math.ceil(2_068_480 / clusterSize) * clusterSize;
    expect(bytes.length).toBeGreaterThanOrEqual(end);
    expect([readQcow2(bytes).problems, readQcow2(bytes).leaks]).toEqual([[], []]);
  });

  const refused: readonly (readonly [OptionTree, string])[] = [
    [{ 'encrypt.format': 'luks' }, "Parameter 'encrypt.key-secret' is required for cipher"],
    [{ 'encrypt.format': 'luks', 'encrypt.key-secret': 'zork' }, "No secret with id 'zork'"],
    [{ 'encrypt.format': 'luks', 'encrypt.key-secret': 'bad' }, 'Data from secret bad is not valid UTF-8'],
    [{ 'encrypt.format': 'zork', 'encrypt.key-secret': 's' }, "Parameter 'format' does not accept value 'zork'"],
    [{ 'encrypt.key-secret': 's' }, "Parameter 'encrypt.format' is missing"],
    [{ ...LUKS, encryption: true }, "'encrypt.format' and its alias 'encryption' can't be used at the same time"],
    [{ ...LUKS, 'encrypt.cipher-alg': 'zork' }, "Parameter 'cipher-alg' does not accept value 'zork'"],
    [{ 'encrypt.format': 'aes', 'encrypt.hash-alg': 'sha1' }, "Parameter 'encrypt.hash-alg' is unexpected"],
  ];
  const AES = 'AES-CBC encryption is not supported for new images; use encrypt.format=luks';
  test.each([
    ...refused,
    [{ 'encrypt.format': 'aes', 'encrypt.key-secret': 's' }, AES] as const,
    [{ encryption: true, 'encrypt.key-secret': 's' }, AES] as const,
  ])('Q-CRYPT-5 and others: %j: %s; and nothing is left', async (options, message) => {
    const host = newHost();
    const making = createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: SIZE, options });
    const error = await making.catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(BlockError);
    expect((error as BlockError).message).toBe(message);
    expect(host.exists(PATH)).toBe(false);
  });

  test('Q-ME-1, Q-ME-3: how large one is', async () => {
    const sizeOf = (options: OptionTree) =>
      measure({ options: parseOptions(createOptions, options).values, size: 1 << 30, extents: undefined });
    expect(await sizeOf(LUKS)).toEqual({ required: 2_490_368, fullyAllocated: 1_076_232_192 });
    expect(await sizeOf({ ...LUKS, 'encrypt.cipher-alg': 'aes-128' })).toMatchObject({ required: 1_507_328 });
    expect(await sizeOf({ ...LUKS, 'encrypt.cipher-alg': 'aes-128', cluster_size: 512 })).toMatchObject({
      required: 22_437_888,
    });
  });

  test.each<OptionTree>([
    { preallocation: 'metadata' },
    { preallocation: 'full', cluster_size: 4096 },
    { preallocation: 'metadata', compat: '0.10', cluster_size: 16384 },
    { preallocation: 'metadata', extended_l2: true },
  ])('storage that is there beforehand reads as zeroes, when made and when grown: %j', async (options) => {
    const size = 200 * 1024;
    const host = await make(options, size);
    const preallocation = options.preallocation as 'metadata' | 'full';
    expect(differsAt(content(host), new Uint8Array(size))).toBe(-1);
    await use(host, async (disk) => {
      await disk.resize(2 * size, { preallocation });
      expect(differsAt(await disk.read(0, 2 * size), new Uint8Array(2 * size))).toBe(-1);
      await disk.write(1000, new Uint8Array(100).fill(7));
    });
    const expected = new Uint8Array(2 * size).fill(7, 1000, 1100);
    expect(differsAt(content(host), expected)).toBe(-1);
  });
});

describe('opening', () => {
  const image = make().then((host) => host.contents(PATH));
  const aes = makeAes().then((host) => host.contents(PATH));
  const KEY = { 'encrypt.key-secret': 's' };

  test.each<[string, Promise<Uint8Array>, OptionTree, string]>([
    ['no secret', image, {}, "Parameter 'encrypt.key-secret' is required for cipher"],
    ['no secret for AES', aes, {}, "Parameter 'encrypt.key-secret' is required for cipher"],
    ['an unknown secret', image, { 'encrypt.key-secret': 'zork' }, "No secret with id 'zork'"],
    ['no text', image, { 'encrypt.key-secret': 'bad' }, 'Data from secret bad is not valid UTF-8'],
    ['a wrong one (Q-CRYPT-3)', image, { 'encrypt.key-secret': 'n' }, 'Invalid password, cannot unlock any keyslot'],
    [
      'another format',
      image,
      { ...KEY, 'encrypt.format': 'aes' },
      "Header reported 'luks' encryption format but options specify 'aes'",
    ],
    [
      'the other way',
      aes,
      { ...KEY, 'encrypt.format': 'luks' },
      "Header reported 'aes' encryption format but options specify 'luks'",
    ],
  ])('Q-OPT-5: %s is refused, and nothing stays open', async (_name, bytes, options, message) => {
    const host = withBytes((await bytes).slice());
    await expect(open(host, options)).rejects.toThrow(new BlockError('EINVAL', message));
    expect(host.openFiles).toEqual([]);
  });

  test('BL-OPEN-30: keys are secrets that options name, at once; nothing is warned of', async () => {
    const host = withBytes((await aes).slice());
    await use(host, (disk) => disk.read(0, 512));
    expect(host.warnings).toEqual([]);
  });

  const at = (offset: bigint): Patch => {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, offset);
    return [POINTER + 8, bytes];
  };
  test.each<[string, readonly Patch[], string]>([
    ['unaligned', [at(512n)], "Encryption header offset '512' is not a multiple of cluster size '65536'"],
    ['elsewhere', [at(65536n)], 'Volume is not in LUKS format'],
    ['past the file', [at(1n << 40n)], 'Volume is not in LUKS format'],
    ['past all files', [at(1n << 63n)], 'Could not read encryption header: Input/output error'],
    ['unknown', [[POINTER, Uint8Array.of(0x12, 0x34, 0x56, 0x78)]], 'Missing CRYPTO header for crypt method 2'],
    ['for AES', [[32, Uint8Array.of(0, 0, 0, 1)]], 'CRYPTO header extension only expected with LUKS encryption method'],
    ['an unknown method', [[32, Uint8Array.of(0, 0, 0, 3)]], 'Unsupported encryption method 3'],
  ])('Q-EXT-4: a pointer that cannot be is refused, with a secret and without: %s', async (_name, patches, message) => {
    const host = withBytes((await image).slice(), patches);
    const text = { message };
    await expect(open(host)).rejects.toMatchObject(text);
    await expect(graphOn(host).open(PATH, { format: 'qcow2', noIO: true })).rejects.toMatchObject(text);
  });

  test('Q-OPT-6: a reopen may change other options, not the secret', async () => {
    const host = withBytes((await image).slice());
    const disk = await open(host);
    const reopen = (options: OptionTree) => disk.graph.reopen([{ node: disk.node, options }]);
    await expect(reopen({ 'encrypt.key-secret': 'n' })).rejects.toThrow(
      "Cannot change the option 'encrypt.key-secret'",
    );
    await reopen({ 'lazy-refcounts': true });
    await disk.write(0, operationData(1, 1000));
    await disk.close();
  });

  test('what is converted into a new image is encrypted by the secret that it is made with', async () => {
    const host = newHost();
    host.put('/source', operationData(4, 100_352));
    const graph = graphOn(host);
    const source = await graph.open('/source', { format: 'raw' });
    const target = { filename: PATH, format: 'qcow2', createOptions: LUKS };
    await convert({ graph, sources: [source], target });
    await source.close();
    expect(differsAt(content(host), operationData(4, 100_352))).toBe(-1);
  });

  test('Q-OPT-5, Q-INFO-1: what an image is can be told without a secret', async () => {
    const host = withBytes((await image).slice());
    const disk = await graphOn(host).open(PATH, { format: 'qcow2', noIO: true });
    const info = disk.node.impl.info?.();
    await disk.close();
    expect(info?.encrypted).toBe(true);
    const free = (slot: number) => ({ active: false, 'key-offset': 4096 + slot * 258_048 });
    expect(info?.specific?.data.encrypt).toEqual({
      'ivgen-alg': 'plain64',
      'hash-alg': 'sha256',
      'cipher-alg': 'aes-256',
      uuid: expect.stringMatching(/^[0-9a-f-]{36}$/),
      format: 'luks',
      'cipher-mode': 'xts',
      slots: [
        { active: true, iters: 1000, 'key-offset': 4096, stripes: 4000 },
        ...Array.from({ length: 7 }, (_, slot) => free(slot + 1)),
      ],
      'payload-offset': 2_068_480,
      'master-key-iters': 1000,
    });
    const other = await graphOn(withBytes((await aes).slice())).open(PATH, { format: 'qcow2', noIO: true });
    expect(other.node.impl.info?.()?.specific?.data.encrypt).toEqual({ format: 'aes' });
    await other.close();
  });
});

describe.each([
  ['LUKS', (options: OptionTree, size: number) => make(options, size)],
  ['AES', makeAes],
])('data of %s images (Q-CRYPT-1, Q-CRYPT-5)', (_name, makeImage) => {
  test('are stored so that others read them, and nobody without the key', async () => {
    const host = await makeImage({ cluster_size: 4096 }, SIZE);
    const data = new TextEncoder().encode('nobody may read this in the file. '.repeat(3000));
    await use(host, async (disk) => {
      await disk.write(70_000, data);
      await disk.write(70_001, Uint8Array.of(33));
      const before = data.slice();
      expect(differsAt(await disk.read(70_000, 1), data.subarray(0, 1))).toBe(-1);
      expect(differsAt(before, data)).toBe(-1);
    });
    data[1] = 33;
    const expected = new Uint8Array(SIZE);
    expected.set(data, 70_000);
    expect(differsAt(content(host), expected)).toBe(-1);
    expect(Buffer.from(host.contents(PATH)).includes('may read')).toBe(false);
  });

  test('Q-READ-4: are data without a place', async () => {
    const host = await makeImage({ cluster_size: 4096 }, SIZE);
    await use(host, async (disk) => {
      await disk.write(8192, operationData(1, 4096));
      expect(await disk.node.impl.status?.(8192, 4096)).toEqual({ kind: 'encoded', length: 4096 });
      expect(disk.node.impl.tryStatusNow?.(8192, 4096)).toEqual({ kind: 'encoded', length: 4096 });
      expect(disk.node.impl.place?.(8192, 4096)).toBeUndefined();
    });
  });

  test('Q-READ-5: are asked for by sectors; a new image reads as zeroes, one with data may not', async () => {
    const host = await makeImage({}, SIZE);
    await use(host, async (disk) => {
      expect(disk.limits.requestAlign).toBe(512);
      expect(disk.zeroInit()).toBe(true);
      await disk.write(3, Uint8Array.of(1, 2, 3));
      expect([...(await disk.read(2, 5))]).toEqual([0, 1, 2, 3, 0]);
      expect(disk.zeroInit()).toBe(false);
    });
  });

  test('Q-WR-8: go in pieces of at most 32 clusters, in memory of their own', async () => {
    const host = await makeImage({ cluster_size: 512 }, SIZE);
    const recorded = Object.assign(new SimHost({ record: true }, host.snapshot()), { crypto: nodeCrypto });
    secrets(recorded).set('s', PASSPHRASE);
    await use(recorded, async (disk) => {
      const data = operationData(5, 100 * 512);
      const source = data.slice();
      await disk.write(0, source);
      expect(differsAt(source, data)).toBe(-1);
      expect(differsAt(await disk.read(0, data.length), data)).toBe(-1);
    });
    const lengths = recorded.log.flatMap((entry) =>
      entry.type === 'change' && entry.change.kind === 'write' ? [entry.change.data.length] : [],
    );
    expect(Math.max(...lengths)).toBe(32 * 512);
  });

  test('Q-WR-9: are not compressed', async () => {
    const host = await makeImage({}, SIZE);
    await use(host, async (disk) => {
      const compressed = disk.node.impl.writeCompressed?.(0, new Uint8Array(65536));
      await expect(compressed).rejects.toMatchObject({ code: 'ENOTSUP' });
    });
  });

  test('Q-DISC-6: are dropped all at once, and what opens the image stays', async () => {
    const host = await makeImage({ cluster_size: 4096 }, SIZE);
    await use(host, async (disk) => {
      await disk.write(0, operationData(1, 300_000));
      await disk.node.impl.makeEmpty?.();
      expect(differsAt(await disk.read(0, SIZE), new Uint8Array(SIZE))).toBe(-1);
      await disk.write(5000, operationData(2, 3000));
    });
    const expected = new Uint8Array(SIZE);
    expected.set(operationData(2, 3000), 5000);
    expect(differsAt(content(host), expected)).toBe(-1);
  });

  test('Q-SNAP-4, Q-SNAP-5: are kept by snapshots, and copied to other places when they change', async () => {
    const host = await makeImage({ cluster_size: 4096 }, SIZE);
    const old = operationData(1, 50_000);
    await use(host, async (disk) => {
      await disk.write(4096, old);
      await disk.snapshots.create('old');
      await disk.write(5000, operationData(2, 9000));
    });
    const changed = new Uint8Array(SIZE);
    changed.set(old, 4096);
    changed.set(operationData(2, 9000), 5000);
    expect(differsAt(content(host), changed)).toBe(-1);
    await use(host, (disk) => disk.snapshots.apply('old'));
    const before = new Uint8Array(SIZE);
    before.set(old, 4096);
    expect(differsAt(content(host), before)).toBe(-1);
  });

  test('Q-SNAP-3: machine state comes in pieces of any length', async () => {
    const host = await makeImage({ cluster_size: 4096 }, SIZE);
    const state = operationData(8, 20_000);
    await use(host, async (disk) => {
      for (let at = 0; at < state.length; at += 777)
        await disk.snapshots.vmState.write(at, state.subarray(at, at + 777));
      const read = new Uint8Array(10_001);
      await disk.snapshots.vmState.read(333, read);
      expect(differsAt(read, state.subarray(333, 10_334))).toBe(-1);
    });
  });

  test('Q-HDR-7: of a disk that ends within a sector, where something above sees to its end', async () => {
    const size = 10 * 4096;
    const bytes = (await makeImage({ cluster_size: 4096 }, size)).contents(PATH);
    const short = size - 700;
    new DataView(bytes.buffer).setBigUint64(24, BigInt(short));
    const host = withBytes(bytes);
    await expect(open(host)).rejects.toThrow('Image size is not a multiple of request alignment');
    const graph = graphOn(host);
    const file = { driver: 'file', filename: PATH };
    const node = await graph.add({ driver: 'qcow2', 'encrypt.key-secret': 's', file });
    const need = Permission.consistentRead | Permission.write | Permission.resize;
    const link = graph.attach('file', { description: 'a format' }, node, 'image', { need, share: ALL_PERMISSIONS });
    await graph.release(node);
    await link.write(short - 1000, new Uint8Array(1000).fill(5));
    const tail = new Uint8Array(2000);
    await link.read(short - 2000, tail);
    expect(differsAt(tail, new Uint8Array(2000).fill(5, 1000))).toBe(-1);
    await link.truncate(size);
    await link.read(size - 2000, tail);
    expect(differsAt(tail, new Uint8Array(2000).fill(5, 300, 1300))).toBe(-1);
    await graph.detach(link);
    const expected = new Uint8Array(size).fill(5, short - 1000, short);
    expect(differsAt(content(host), expected)).toBe(-1);
  });
});

describe('key slots by amending (Q-AM-5)', () => {
  test('another passphrase opens the image, until it is taken away', async () => {
    const host = await make();
    await use(host, async (disk) => {
      await disk.write(0, operationData(3, 5000));
      await disk.amend({ 'encrypt.state': 'active', 'encrypt.new-secret': 'n', 'encrypt.iter-time': 1 });
    });
    const disk = await open(host, { 'encrypt.key-secret': 'n' });
    expect(differsAt(await disk.read(0, 5000), operationData(3, 5000))).toBe(-1);
    await disk.amend({ 'encrypt.state': 'inactive', 'encrypt.old-secret': 's' });
    await disk.close();
    await expect(open(host)).rejects.toThrow('Invalid password, cannot unlock any keyslot');
    await (await open(host, { 'encrypt.key-secret': 'n' })).close();
    expect(readQcow2(host.contents(PATH))).toMatchObject({ problems: [], leaks: [] });
  });

  test.each<[OptionTree, string]>([
    [{ 'encrypt.new-secret': 'n' }, "Parameter 'state' is missing"],
    [{ 'encrypt.state': 'zork' }, "Parameter 'state' does not accept value 'zork'"],
    [{ 'encrypt.state': 'active' }, "'new-secret' is required to activate a keyslot"],
    [{ 'encrypt.state': 'active', 'encrypt.new-secret': 'zork' }, "No secret with id 'zork'"],
    [
      { 'encrypt.state': 'active', 'encrypt.new-secret': 'n', 'encrypt.old-secret': 's' },
      "'old-secret' must not be given when activating keyslots",
    ],
    [
      { 'encrypt.state': 'active', 'encrypt.new-secret': 'n', 'encrypt.keyslot': 8 },
      'Invalid keyslot 8 specified, must be between 0 and 7',
    ],
    [
      { 'encrypt.state': 'inactive', 'encrypt.new-secret': 'n', 'encrypt.keyslot': 1 },
      "'new-secret' must not be given when erasing keyslots",
    ],
    [
      { 'encrypt.state': 'inactive', 'encrypt.iter-time': 5, 'encrypt.keyslot': 1 },
      "'iter-time' must not be given when erasing keyslots",
    ],
    [
      { 'encrypt.state': 'inactive', 'encrypt.keyslot': 0 },
      'Attempt to erase the only active keyslot 0 which will erase all the data in the image irreversibly - refusing operation',
    ],
  ])('%j: %s', async (options, message) => {
    const host = await make();
    const before = host.contents(PATH);
    await use(host, async (disk) => {
      await expect(disk.amend(options)).rejects.toThrow(message);
    });
    expect(differsAt(host.contents(PATH), before)).toBe(-1);
  });

  test('of legacy AES there are none', async () => {
    await use(await makeAes(), async (disk) => {
      const amending = disk.amend({ 'encrypt.state': 'active', 'encrypt.new-secret': 'n' });
      await expect(amending).rejects.toThrow('Only LUKS encryption options can be amended');
    });
  });
});
