/** New images over others (BL-CREATE-6, BL-CREATE-7). */
import { describe, expect, test } from 'vitest';
import { type CreateRequest, createImage } from '../../src/core/create.ts';
import { defineFormat } from '../../src/core/driver.ts';
import { BlockError, errorText } from '../../src/core/errors.ts';
import { Graph } from '../../src/core/graph.ts';
import { option } from '../../src/core/options.ts';
import type { SimHost } from '../../src/testing/index.ts';
import { DRIVERS } from '../support/drivers.ts';
import { FREE, VDI_FIELDS } from '../support/vdi-bytes.ts';
import { block, blocks, expectSame } from '../support/vdi-on-sim.ts';
import { contentOf, hostWithFiles, storedIn, uuidIn, vdiImage, withChild } from '../support/vdi-parents.ts';

interface LayerOptions {
  readonly size: number;
  readonly backing_file: string | undefined;
  readonly backing_fmt: string | undefined;
}

/** A format that records a backing file by name; what is made is empty. */
const layer = defineFormat<unknown, LayerOptions>({
  name: 'layer',
  summary: 'for tests',
  options: {},
  supportsBacking: true,
  create: {
    options: {
      size: option.size({ help: '', fallback: 0, shown: true }),
      backing_file: option.text<string | undefined>({ help: '', fallback: undefined }),
      backing_fmt: option.text<string | undefined>({ help: '', fallback: undefined }),
    },
    async run() {},
  },
  async open() {
    throw new TypeError('not needed');
  },
});

const RAW = '/raw';
const BASE = '/base.vdi';

function newHost(): SimHost {
  return hostWithFiles({
    [RAW]: new Uint8Array(3 * 512),
    [BASE]: vdiImage({ map: [0, 1] }, { uuid: 1 }),
    '/orphan.vdi': vdiImage({ map: [FREE] }, { uuid: 5, link: 9 }),
  });
}

/** What is reported, or code, message and hint of the refusal. */
async function make(host: SimHost, asked: Omit<CreateRequest, 'filename'> & { readonly filename?: string }) {
  const graph = new Graph({ host, drivers: [...DRIVERS, layer] });
  const lines: string[] = [];
  const { filename = '/new', ...others } = asked;
  try {
    await createImage(graph, { filename, ...others, report: (line) => void lines.push(line) });
  } catch (error) {
    const { code, message, hint } = error as { code: string; message: string; hint?: string };
    return hint === undefined ? `${code} ${message}` : `${code} ${message}\n${hint}`;
  }
  expect(graph.nodes()).toEqual([]);
  expect(host.openFiles).toEqual([]);
  return lines.join('\n');
}

describe('an image over another', () => {
  test('has its size, unless another is given', async () => {
    const over = { format: 'layer', backingFile: RAW, backingFormat: 'raw' };
    expect(await make(newHost(), over)).toBe(
      `Formatting '/new', fmt=layer size=1536 backing_file=${RAW} backing_fmt=raw`,
    );
    expect(await make(newHost(), { ...over, size: 512 })).toMatch(/ size=512 /);
    expect(await make(newHost(), { ...over, options: { size: 1024 } })).toMatch(/ size=1024 /);
    const options = { backing_file: RAW, backing_fmt: 'raw' };
    expect(await make(newHost(), { format: 'layer', options })).toMatch(/ size=1536 /);
    // What is asked for goes before the options.
    expect(await make(newHost(), { ...over, options: { backing_file: '/nope' } })).toMatch(/ backing_file=\/raw /);
  });

  test('is not made over one whose size cannot be told (BL-CREATE-7)', async () => {
    const host = newHost();
    let told = false;
    const losing = defineFormat({
      name: 'losing',
      summary: 'tells its length while it is opened',
      options: {},
      open: async ({ file }) => ({
        length() {
          if (told) throw new BlockError('EIO', errorText('EIO'));
          return file.length();
        },
        // Asked when the length is known.
        limits() {
          told = true;
          return {};
        },
        read: (offset, target) => file.read(offset, target),
      }),
    });
    const graph = new Graph({ host, drivers: [...DRIVERS, layer, losing] });
    const asked = { filename: '/new', format: 'layer', backingFile: RAW, backingFormat: 'losing' };
    await expect(createImage(graph, asked)).rejects.toMatchObject({
      code: 'EIO',
      message: `Could not get size of '${RAW}': Input/output error`,
    });
    expect([graph.nodes(), host.openFiles, host.exists('/new')]).toEqual([[], [], false]);
  });

  test('names it as seen from its own folder', async () => {
    const host = newHost();
    const asked = { filename: '/sub/new', format: 'layer', backingFormat: 'raw' };
    expect(await make(host, { ...asked, backingFile: '../raw' })).toMatch(/ size=1536 backing_file=\.\.\/raw /);
    expect(await make(host, { ...asked, backingFile: 'raw' })).toBe(
      "ENOENT Could not open '/sub/raw': No such file or directory\nCould not open backing image.",
    );
  });

  test('needs the format told', async () => {
    const host = newHost();
    const missing = 'EINVAL Backing file specified without backing format';
    const asked = { format: 'layer', size: 512 };
    expect(await make(host, { ...asked, backingFile: RAW })).toBe(`${missing}\nDetected format of raw.`);
    expect(await make(host, { ...asked, backingFile: BASE })).toBe(`${missing}\nDetected format of vdi.`);
    expect(await make(host, { ...asked, backingFile: BASE, unchecked: true })).toBe(missing);
  });

  test('is not itself, by whatever name', async () => {
    const host = newHost();
    host.link('/link', '/new');
    const text = 'EINVAL Error: Trying to create an image with the same filename as the backing file';
    for (const backingFile of ['/new', './new', '/link']) {
      expect(await make(host, { format: 'layer', backingFile, backingFormat: 'raw' })).toBe(text);
    }
  });

  test('is not looked at when unchecked, and then has no size by itself', async () => {
    const asked = { format: 'layer', backingFile: '/nope', backingFormat: 'raw', unchecked: true };
    expect(await make(newHost(), { ...asked, size: 512 })).toMatch(/ size=512 backing_file=\/nope /);
    expect(await make(newHost(), asked)).toBe('EINVAL Image creation needs a size parameter');
  });

  test('is refused with what cannot be', async () => {
    const host = newHost();
    const asked = { format: 'layer', backingFormat: 'raw', size: 512 };
    const not = '\nCould not open backing image.';
    expect(await make(host, { ...asked, backingFile: '' })).toBe('EINVAL Expected backing file name, got empty string');
    expect(await make(host, { ...asked, backingFile: BASE, backingFormat: 'bogus' })).toBe(
      `ENOENT Unknown driver 'bogus'${not}`,
    );
    expect(await make(host, { ...asked, backingFile: RAW, backingFormat: 'vdi' })).toMatch(
      /^EINVAL Image not in VDI format \(bad signature 00000000\)\nCould not open backing image\.$/,
    );
    expect(await make(host, { ...asked, format: 'raw', backingFile: RAW })).toBe(
      "ENOTSUP Backing file not supported for file format 'raw'",
    );
    expect(await make(host, { ...asked, format: 'raw' })).toBe(
      "ENOTSUP Backing file format not supported for file format 'raw'",
    );
  });
});

describe('a VDI over another (V-41, V-50)', () => {
  test('records its UUIDs, and takes its size', async () => {
    for (const asked of [
      { backingFile: BASE, backingFormat: 'vdi' },
      { options: { parent: BASE } },
      { options: { parent: 'base.vdi' } },
      { options: { parent: `json:{"driver":"vdi","file":{"driver":"file","filename":"${BASE}"}}` } },
      { backingFile: `file:${BASE}`, backingFormat: 'vdi' },
    ]) {
      const host = newHost();
      expect(await make(host, { format: 'vdi', ...asked })).toMatch(
        /^Formatting '\/new', fmt=vdi size=8192 static=off parent=/,
      );
      expect([uuidIn(host, 'linkUuid', '/new'), uuidIn(host, 'parentUuid', '/new')]).toEqual([1, 0x41]);
      expect(storedIn(host, '/new')).toMatchObject({ map: [FREE], allocated: 0 });
      expect(host.contents('/new')[VDI_FIELDS.type]).toBe(4);
      expectSame(await contentOf(host, '/new'), blocks(1, 2));
    }
  });

  test('may be larger or smaller', async () => {
    const host = newHost();
    await make(host, { format: 'vdi', filename: '/larger', size: 16384, options: { parent: BASE } });
    await make(host, { format: 'vdi', filename: '/smaller', size: 512, options: { parent: BASE } });
    expectSame(await contentOf(host, '/larger'), blocks(1, 2, 0, 0));
    expectSame(await contentOf(host, '/smaller'), block(1, 512));
  });

  test('makes no images that are based on what it cannot record, or on themselves', async () => {
    const host = newHost();
    const asked = { format: 'vdi', size: 512 };
    expect(await make(host, { ...asked, backingFile: RAW, backingFormat: 'raw' })).toBe(
      "ENOTSUP Images of format 'vdi' can only be based on images of format 'vdi', not 'raw'",
    );
    expect(await make(host, { ...asked, backingFormat: 'vdi' })).toBe(
      'EINVAL Backing format cannot be used without backing file',
    );
    expect(await make(host, { ...asked, backingFile: BASE })).toBe(
      'EINVAL Backing file specified without backing format\nDetected format of vdi.',
    );
    expect(await make(host, { ...asked, options: { parent: BASE, static: true } })).toBe(
      'EINVAL An image that is based on another cannot be static',
    );
    const uuid = '01010101-0101-0101-0101-010101010101';
    expect(await make(host, { ...asked, options: { parent: BASE, uuid } })).toMatch(
      /EINVAL '\/base\.vdi' has the UUID of the image that is to be based on it$/,
    );
    expect(await make(host, { ...asked, backingFile: '/nope.vdi', backingFormat: 'vdi', unchecked: true })).toMatch(
      /ENOENT /,
    );
    expect(host.contents(BASE).length).toBeGreaterThan(0);
  });

  test('without a recorded parent is for overlays that go again', async () => {
    const host = newHost();
    await make(host, { format: 'vdi', size: 1536, options: { differencing: true } });
    const source = {
      driver: 'vdi',
      file: { driver: 'file', filename: '/new' },
      backing: { driver: 'raw', file: { driver: 'file', filename: RAW } },
    };
    await withChild(host, (disk) => disk.write(512, block(7, 512)), {}, source);
    const expected = new Uint8Array(1536);
    expected.fill(7, 512, 1024);
    expectSame(await contentOf(host, source), expected);
    expect([uuidIn(host, 'linkUuid', '/new'), uuidIn(host, 'type', '/new')]).toEqual([0, 4]);
  });

  test('goes over an image whose own parent is missing only when opened without it', async () => {
    const host = newHost();
    expect(await make(host, { format: 'vdi', options: { parent: '/orphan.vdi' } })).toMatch(/ parent=\/orphan\.vdi$/);
    await expect(contentOf(host, '/new')).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
