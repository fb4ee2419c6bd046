/** Making images: BL-CREATE, with the wordings of the rules. */
import { describe, expect, test } from 'vitest';
import { type CreateRequest, createImage } from '../../src/core/create.ts';
import { type CreateSpec, type DriverSpec, defineFormat, type FormatCreateContext } from '../../src/core/driver.ts';
import { BlockError } from '../../src/core/errors.ts';
import { Graph } from '../../src/core/graph.ts';
import { option } from '../../src/core/options.ts';
import { SimHost } from '../../src/testing/index.ts';
import { DRIVERS } from '../support/drivers.ts';
import { failing, failureOf, plainFormat, Storage, storageProtocol } from './storage.ts';

interface MadeOptions {
  readonly size: number | undefined;
  readonly mode: 'slow' | 'fast' | 'a,b' | undefined;
  readonly cluster_size: number;
}

/** A format with options of its own, that writes a mark. */
function madeFormat(run: CreateSpec<MadeOptions, FormatCreateContext<MadeOptions>>['run']): DriverSpec {
  return defineFormat<object, MadeOptions>({
    ...plainFormat,
    name: 'made',
    create: {
      options: {
        mode: option.choice(['slow', 'fast', 'a,b'], { help: '', fallback: 'slow', shown: true }),
        size: option.size<number | undefined>({ help: '', fallback: undefined, shown: true }),
        cluster_size: option.size<number>({ help: '', fallback: 0 }),
      },
      run,
    },
  }) as DriverSpec;
}

const writeMark: Parameters<typeof madeFormat>[0] = async ({ file, options }) => {
  await file.write(0, new Uint8Array([1, 2, 3, Number(options.size ?? 0) % 251]));
};

/** `file`, which makes files of the host and takes options of its own. */
function fileProtocol(given: unknown[] = []): DriverSpec {
  return {
    ...storageProtocol(new Storage(0), 'file'),
    create: {
      options: {
        size: option.size<number | undefined>({ help: '', fallback: undefined }),
        tier: option.text<string | undefined>({ help: '', fallback: undefined }),
      },
      run: async ({ filename, options, host }: { filename: string; options: unknown; host: SimHost }) => {
        given.push(options);
        await (await host.files.open(filename, { write: true, create: 'truncate' })).close();
      },
    },
  } as unknown as DriverSpec;
}

function setUp(run = writeMark) {
  const host = new SimHost();
  const given: unknown[] = [];
  const lines: string[] = [];
  const noCreate = storageProtocol(new Storage(2048), 'net');
  const graph = new Graph({ host, drivers: [fileProtocol(given), noCreate, plainFormat, madeFormat(run)] });
  const make = (asked: Partial<CreateRequest>) =>
    createImage(graph, { filename: '/x', format: 'made', report: (line) => lines.push(line), ...asked });
  return { host, graph, given, lines, make };
}

describe('creation', () => {
  test('BL-CREATE-3: unknown formats and those that cannot', async () => {
    const { make } = setUp();
    expect(await failureOf(make({ format: 'nope', size: 1 }))).toEqual({
      code: 'EINVAL',
      message: "Unknown file format 'nope'",
    });
    expect(await failureOf(make({ format: 'plain', size: 1 }))).toEqual({
      code: 'ENOTSUP',
      message: "Format driver 'plain' does not support image creation",
    });
    expect(await failureOf(make({ filename: 'nope:x', size: 1 }))).toEqual({
      code: 'ENOENT',
      message: "Unknown protocol 'nope'",
    });
  });

  test('BL-CREATE-5, BL-CREATE-7: the size, once', async () => {
    const { make, host } = setUp();
    expect(await failureOf(make({ size: 512, options: { size: '512' } }))).toEqual({
      code: 'EINVAL',
      message: 'The image size must be specified only once',
    });
    expect(await failureOf(make({}))).toEqual({
      code: 'EINVAL',
      message: 'Image creation needs a size parameter',
    });
    expect(host.exists('/x')).toBe(false);
    await make({ size: 0 });
  });

  test('BL-CREATE-4: unknown and malformed options are refused before anything is made', async () => {
    const { make, host, lines } = setUp();
    expect(await failureOf(make({ size: 512, options: { colour: 'red' } }))).toEqual({
      code: 'EINVAL',
      message: "Invalid parameter 'colour'",
    });
    expect((await failureOf(make({ options: { size: 'big' } }))).message).toBe(
      "Parameter 'size' expects a non-negative number below 2^64",
    );
    expect(host.exists('/x')).toBe(false);
    expect(lines).toEqual([]);
  });

  test('BL-CREATE-2, BL-CREATE-4: a name of both goes to the format; the protocol gets what the user set of its own', async () => {
    const { make, given } = setUp();
    await make({ size: 512, options: { tier: 'cold' } });
    expect(given).toEqual([{ size: undefined, tier: 'cold' }]);
  });

  test('BL-CREATE-8: the line, before the work', async () => {
    const order: string[] = [];
    const { make } = setUp(async (context) => {
      order.push('work');
      await writeMark(context);
    });
    const report = (line: string) => void order.push(line);
    await make({ size: 1536, report });
    await make({ report, options: { size: '1k', mode: 'a,b', tier: 'x,y' } });
    expect(order).toEqual([
      "Formatting '/x', fmt=made mode=slow size=1536",
      'work',
      "Formatting '/x', fmt=made mode=a,,b size=1024 tier=x,,y",
      'work',
    ]);
  });

  test('BL-CREATE-1: a failure without words of its own says what failed; words of the driver stay', async () => {
    const { make, host } = setUp(failing('EIO'));
    expect(await failureOf(make({ size: 512 }))).toEqual({
      code: 'EIO',
      message: 'Could not create image: Input/output error',
    });
    host.faults.inject({ operation: 'open', code: 'EACCES' });
    expect(await failureOf(make({ size: 512 }))).toEqual({
      code: 'EACCES',
      message: 'Could not create image: Permission denied',
    });
    const { make: other } = setUp(async () => {
      throw new BlockError('EIO', 'The moon is full');
    });
    expect(await failureOf(other({ size: 512 }))).toEqual({ code: 'EIO', message: 'The moon is full' });
  });

  test('BL-CREATE-1, BL-CREATE-3: a protocol that makes nothing and has nothing there', async () => {
    const { make, graph } = setUp();
    expect(graph.driver('net')?.create).toBeUndefined();
    const bare = storageProtocol(new Storage(2048), 'bare');
    const { needsFilename: _needed, ...unnamed } = bare as DriverSpec & { needsFilename?: boolean };
    const named = { ...unnamed, prefixes: ['bare'] } as DriverSpec;
    const other = new Graph({ host: new SimHost(), drivers: [fileProtocol(), named, madeFormat(writeMark)] });
    expect(await failureOf(createImage(other, { filename: 'bare:x', format: 'made', size: 512 }))).toEqual({
      code: 'ENOTSUP',
      message: "Protocol driver 'bare' does not support image creation",
    });
    expect((await failureOf(make({ filename: 'bare:x', size: 512 }))).message).toBe("Unknown protocol 'bare'");
  });

  test('BL-CREATE-8: the example', async () => {
    const lines: string[] = [];
    const graph = new Graph({ host: new SimHost(), drivers: DRIVERS });
    const report = (line: string) => void lines.push(line);
    await createImage(graph, { filename: 't.qcow2', format: 'qcow2', size: 1024, report });
    expect(lines).toEqual([
      "Formatting 't.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=1024 lazy_refcounts=off refcount_bits=16",
    ]);
  });

  test('BL-CREATE-9: too large', async () => {
    const { make } = setUp(failing('EFBIG'));
    expect(await failureOf(make({ size: 512 }))).toEqual({
      code: 'EFBIG',
      message: "The image size is too large for file format 'made'",
    });
    expect(await failureOf(make({ size: 512, options: { cluster_size: '64k' } }))).toEqual({
      code: 'EFBIG',
      message: "The image size is too large for file format 'made' (try using a larger cluster size)",
    });
  });

  test('a file that was not there before goes again when it fails; one that was stays', async () => {
    const { make, host } = setUp(failing('EIO'));
    expect((await failureOf(make({ size: 512 }))).code).toBe('EIO');
    expect(host.exists('/x')).toBe(false);
    await (await host.files.open('/x', { write: true, create: 'new' })).close();
    expect((await failureOf(make({ size: 512 }))).code).toBe('EIO');
    expect(host.exists('/x')).toBe(true);
    expect(host.openFiles).toEqual([]);
  });

  test('an abort is heeded before anything is made', async () => {
    const { make, host } = setUp();
    const signal = AbortSignal.abort(new BlockError('ECANCELED', 'enough'));
    expect((await failureOf(make({ size: 512, signal }))).message).toBe('enough');
    expect(host.exists('/x')).toBe(false);
  });

  test('nothing stays open', async () => {
    const { make, graph } = setUp();
    await make({ size: 512 });
    expect(graph.nodes()).toEqual([]);
  });
});
