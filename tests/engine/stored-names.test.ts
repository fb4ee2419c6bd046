/** Names that images hold: BL-NAME-3 to BL-NAME-7. */
import { describe, expect, test } from 'vitest';
import { combineNames, isAbsoluteName, nodeFolder, resolveBackingName } from '../../src/core/backing-name.ts';
import { type DriverSpec, defineFilter, defineFormat } from '../../src/core/driver.ts';
import { protocolPrefix, stripPrefix } from '../../src/core/filename.ts';
import type { Graph } from '../../src/core/graph.ts';
import { BlockNode } from '../../src/core/node.ts';
import type { OpenOptions } from '../../src/core/open-options.ts';
import type { NestedOptions } from '../../src/core/options.ts';
import { raw } from '../../src/formats/raw.ts';
import { namingFormat } from './naming-format.ts';
import { failureOf, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

const filter = defineFilter({ name: 'filter', summary: '', options: {}, open: async () => ({}) });
/** Holds its data in several children, none of which is the first. */
const several = defineFormat({
  ...plainFormat,
  name: 'several',
  fileRole: () => 'metadata',
});

function newGraph(): Graph {
  const files: DriverSpec = storageProtocol(new Storage(8192), 'file');
  return graphOf([files, storageProtocol(new Storage(8192), 'store'), filter, several, plainFormat, raw, namingFormat]);
}

/** The file that an image opens as its backing file. */
async function backingOf(file: NestedOptions, names: string): Promise<string> {
  await using disk = await newGraph().open({ driver: 'naming', names, format: 'raw', file });
  return disk.node.backing?.node.filename ?? '';
}

describe('text', () => {
  test('BL-NAME-1: a prefix ends with the first colon, if no slash comes before it', () => {
    expect(['a:b', ':b', 'a/b:c', './a:b', 'a', ''].map(protocolPrefix)).toEqual([
      'a',
      '',
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });

  test('BL-NAME-3: absolute names start with a slash', () => {
    expect(['/a', '/', 'a/b', './a', 'file:/a', ''].map(isAbsoluteName)).toEqual([
      true,
      true,
      false,
      false,
      false,
      false,
    ]);
  });

  test('BL-NAME-4: a name seen from the folder of another; a colon in a folder is none of a protocol', () => {
    expect(combineNames('/d/a', '/b')).toBe('/b');
    expect(combineNames('/d/a', 'b')).toBe('/d/b');
    expect(combineNames('d/e/a', '../b')).toBe('d/e/../b');
    expect(combineNames('a', 'b')).toBe('b');
    expect(combineNames('', 'b')).toBe('b');
    expect(combineNames('/d/a:b', 'c')).toBe('/d/c');
    expect(combineNames('./a:b', 'c')).toBe('./c');
    expect(combineNames('nbd:a', 'c')).toBe('nbd:c');
    expect(combineNames('http://h/a/b', 'c')).toBe('http://h/a/c');
  });

  test('BL-NAME-5: a backing name as its image means it', () => {
    expect(resolveBackingName('/d/a', '')).toBe('');
    expect(resolveBackingName('', 'nbd:x')).toBe('nbd:x');
    expect(resolveBackingName('', '/x')).toBe('/x');
    expect(resolveBackingName('/d/a', 'x')).toBe('/d/x');
    for (const backed of ['', 'json:{"driver": "null-co"}']) {
      expect(() => resolveBackingName(backed, 'x')).toThrow(
        expect.objectContaining({
          code: 'EINVAL',
          message: `Cannot use relative backing file names for '${backed}'`,
        }),
      );
    }
  });

  test('BL-NAME-9: a driver strips its own prefix, once', () => {
    const strip = (name: string) => stripPrefix(name, 'file');
    expect(['file:a', 'a', 'file:file:a', 'file:x:y', 'file:/x:y', 'files:a'].map(strip)).toEqual([
      'a',
      'a',
      './file:a',
      './x:y',
      '/x:y',
      'files:a',
    ]);
  });
});

describe('BL-NAME-6: the folder is that of the node', () => {
  const FILE = { driver: 'file', filename: '/d/top' };

  test('of its file, whatever is between them', async () => {
    expect(await backingOf(FILE, 'below')).toBe('/d/below');
    expect(await backingOf({ driver: 'filter', file: FILE }, 'below')).toBe('/d/below');
    expect(await backingOf({ driver: 'raw', offset: 0, file: FILE }, '../below')).toBe('/d/../below');
    expect(await backingOf({ driver: 'file', filename: 'top' }, 'below')).toBe('below');
    expect(await backingOf(FILE, '/below')).toBe('/below');
  });

  test('a json: name of the top resolves as well', async () => {
    const name =
      'json:{"driver": "naming", "names": "below", "format": "raw", "file": {"driver": "file", "filename": "/d/top"}}';
    await using disk = await newGraph().open(name);
    expect(disk.node.backing?.node.filename).toBe('/d/below');
  });

  test('there is none, in the words of the rule', async () => {
    expect(await failureOf(backingOf({ driver: 'store' }, 'below'))).toEqual({
      code: 'ENOTSUP',
      message: 'Cannot generate a base directory for store nodes',
    });
    expect(await failureOf(backingOf({ driver: 'several', file: FILE }, 'below'))).toEqual({
      code: 'ENOTSUP',
      message: 'Cannot generate a base directory for several nodes',
    });
    const { node } = await newGraph().open(FILE);
    const empty = new BlockNode('empty', node.driver, node.settings, {}, node.origin);
    expect(() => nodeFolder(empty)).toThrow(
      expect.objectContaining({ code: 'ENOMEDIUM', message: "Node 'empty' is ejected" }),
    );
  });
});

test('BL-NAME-7: what the image holds is readable as it stands', async () => {
  const graph = newGraph();
  const file = { driver: 'file', filename: '/d/top' };
  const { node } = await graph.open({ driver: 'naming', names: '../x/./y', format: 'raw', file });
  expect(node.storedBacking).toEqual({ filename: '../x/./y', format: 'raw' });
  expect(node.automaticBackingName).toBe('/d/../x/./y');
  expect((await graph.open(file)).node.storedBacking).toBeUndefined();
});

describe('BL-REFRESH-6: a backing child in a shown name', () => {
  const file = { driver: 'file', filename: '/d/top' };
  const overlay = { driver: 'naming', names: 'below', format: 'raw', file };
  const options = async (source: NestedOptions, more: OpenOptions = {}) => {
    await using disk = await newGraph().open(source, more);
    return disk.filename.startsWith('json:') ? JSON.parse(disk.filename.slice('json:'.length)) : disk.filename;
  };

  test('is left out where it is the one that the image names', async () => {
    expect(await options(overlay)).toBe('/d/top');
    const same = { driver: 'raw', file: { driver: 'file', filename: '/d/below' } };
    expect(await options({ ...overlay, backing: same })).toBe('/d/top');
  });

  test('is there where it is another, or was left out', async () => {
    const other = { driver: 'raw', file: { driver: 'file', filename: '/other' } };
    expect(await options({ ...overlay, backing: other })).toEqual({ driver: 'naming', file, backing: other });
    expect(await options({ ...overlay, backing: null })).toEqual({ driver: 'naming', file, backing: null });
  });

  test('does not count where only information is wanted', async () => {
    expect(await options({ ...overlay, backing: null }, { noIO: true })).toBe('/d/top');
    expect(await options(overlay, { noIO: true, noBacking: true })).toBe('/d/top');
  });

  test('an image that names none and has none', async () => {
    expect(await options({ driver: 'naming', file })).toBe('/d/top');
    expect(await options({ driver: 'naming', file, backing: null })).toBe('/d/top');
  });
});
