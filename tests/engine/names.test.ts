/** File names given and shown: BL-NAME, BL-REFRESH. */
import { describe, expect, test } from 'vitest';
import { defineFilter } from '../../src/core/driver.ts';
import { type NestedOptions, option } from '../../src/core/options.ts';
import { raw } from '../../src/formats/raw.ts';
import { failureOf, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

function newGraph() {
  return graphOf([
    storageProtocol(new Storage(8192), 'file'),
    storageProtocol(new Storage(8192), 'net'),
    plainFormat,
    raw,
  ]);
}

async function shown(source: string | NestedOptions, format?: string): Promise<string> {
  await using disk = await newGraph().open(source, { format });
  return disk.filename;
}

describe('names given (BL-NAME-8)', () => {
  test('json: holds options, nested or dotted', async () => {
    expect(await shown('json:{"driver": "raw", "file": {"driver": "net", "filename": "x"}}')).toBe('x');
    expect(await shown('json:{"driver": "raw", "file.driver": "net", "file.filename": "x"}')).toBe('x');
  });

  test('json: that is none, to the letter', async () => {
    const failure = (name: string) => failureOf(newGraph().open(name));
    expect((await failure('json:{')).message).toMatch(/^Could not parse the JSON options: ./);
    expect((await failure('json:{')).code).toBe('EINVAL');
    for (const text of ['json:[]', 'json:1', 'json:"x"', 'json:null']) {
      expect(await failure(text)).toEqual({ code: 'EINVAL', message: 'Invalid JSON object given' });
    }
  });

  test('the parser’s text follows', async () => {
    const failure = async (name: string) => (await failureOf(newGraph().open(name))).message;
    const prefix = 'Could not parse the JSON options: ';
    expect(await failure('json:')).toBe(`${prefix}Expecting a JSON value`);
    expect(await failure('json:{"driver":}')).toBe(`${prefix}JSON parse error, expecting value`);
    expect(await failure('json:{"driver": "raw", "driver": "raw"}')).toBe(`${prefix}JSON parse error, duplicate key`);
  });

  test('nested objects and arrays are dotted keys; empty ones stay, so that they are not taken for nothing', async () => {
    const failure = async (more: string) => {
      const name = `json:{"driver": "raw", "file": {"driver": "net"}, ${more}}`;
      return (await failureOf(newGraph().open(name))).message;
    };
    const unknown = (key: string) => `Block format 'raw' does not support the option '${key}'`;
    expect(await failure('"a": {"b": [1, {"c": 2}]}')).toBe(unknown('a.b.0'));
    expect(await failure('"a": [{"c": 2}]')).toBe(unknown('a.0.c'));
    expect(await failure('"a": {}')).toBe(unknown('a'));
    expect(await failure('"a": []')).toBe(unknown('a'));
    expect(await failure('"a": null')).toBe(unknown('a'));
  });

  test('an empty child is none', async () => {
    const failure = (name: string) => failureOf(newGraph().open(name));
    const missing = { code: 'EINVAL', message: 'A block device must be specified for "file"' };
    expect(await failure('json:{"driver": "raw", "file": {}}')).toEqual(missing);
    expect(await failure('json:{"driver": "raw", "file": null}')).toEqual(missing);
    const nothing = { code: 'EINVAL', message: 'Must specify either driver or file' };
    expect(await failure('json:{"file": {}}')).toEqual(nothing);
    expect(await failure('json:{"file": []}')).toEqual(nothing);
  });

  test('keys that objects have by nature are options like any others', async () => {
    for (const key of ['__proto__', 'constructor', 'toString']) {
      const name = `json:{"driver": "raw", "file": {"driver": "net"}, "${key}": 1}`;
      expect(await failureOf(newGraph().open(name))).toEqual({
        code: 'EINVAL',
        message: `Block format 'raw' does not support the option '${key}'`,
      });
    }
  });
});

describe('names shown', () => {
  test('BL-REFRESH-3: a format without options of its own shows the name of its file', async () => {
    expect(await shown('disk.img', 'raw')).toBe('disk.img');
    expect(await shown({ driver: 'plain', file: { driver: 'net', filename: 'a' } })).toBe('a');
    expect(
      await shown({ driver: 'plain', 'node-name': 'n', 'read-only': true, file: { driver: 'net', filename: 'a' } }),
    ).toBe('a');
  });

  test('BL-REFRESH-5, BL-REFRESH-6: options that change the data make it a json: name', async () => {
    expect(await shown({ driver: 'raw', size: '512', file: { driver: 'file', filename: 'disk.img' } })).toBe(
      'json:{"driver": "raw", "size": "512", "file": {"driver": "file", "filename": "disk.img"}}',
    );
    expect(await shown({ driver: 'raw', offset: 512, file: { driver: 'file', filename: 'disk.img' } })).toBe(
      'json:{"offset": 512, "driver": "raw", "file": {"driver": "file", "filename": "disk.img"}}',
    );
  });

  test('BL-REFRESH-6: a file that is no protocol has no plain name', async () => {
    const tree = { driver: 'raw', file: { driver: 'raw', file: { driver: 'file', filename: 'disk.img' } } };
    expect(await shown(tree)).toBe(
      'json:{"driver": "raw", "file": {"driver": "raw", "file": {"driver": "file", "filename": "disk.img"}}}',
    );
  });

  test('BL-REFRESH-4: a protocol without a name', async () => {
    expect(await shown({ driver: 'net' })).toBe('json:{"driver": "net"}');
    expect(await shown({ driver: 'raw', file: { driver: 'net' } })).toBe(
      'json:{"driver": "raw", "file": {"driver": "net"}}',
    );
  });

  test('BL-REFRESH-1: the name shown opens the same again', async () => {
    const graph = newGraph();
    for (const tree of [
      { driver: 'raw', size: 1024, file: { driver: 'file', filename: 'ä"b,c' } },
      { driver: 'raw', file: { driver: 'raw', offset: 512, file: { driver: 'net' } } },
    ]) {
      const disk = await graph.open(tree);
      const again = await graph.open(disk.filename);
      expect(again.filename).toBe(disk.filename);
      expect(again.length).toBe(disk.length);
      await disk.close();
      await again.close();
    }
  });

  test('BL-REFRESH-2: a driver that words its name itself', async () => {
    const worded = defineFilter({
      name: 'worded',
      summary: '',
      options: { say: option.text({ help: '', fallback: '' }) },
      strongOptions: ['say'],
      exactFilename: ({ say }, child) => (say === undefined ? `worded:${child('file')}` : undefined),
      open: async () => ({}),
    });
    const graph = graphOf([storageProtocol(new Storage(8192), 'file'), worded, raw]);
    const file = { driver: 'file', filename: 'x' };
    expect((await graph.open({ driver: 'worded', file })).filename).toBe('worded:x');
    expect((await graph.open({ driver: 'raw', file: { driver: 'worded', file } })).filename).toBe('worded:x');
    expect((await graph.open({ driver: 'worded', say: 'y', file })).filename).toBe(
      'json:{"say": "y", "driver": "worded", "file": {"driver": "file", "filename": "x"}}',
    );
  });

  test('names are never cut', async () => {
    const name = 'n'.repeat(5000);
    expect(await shown(name, 'raw')).toBe(name);
    const long = await shown({ driver: 'raw', size: 512, file: { driver: 'file', filename: name } });
    expect(long.length).toBeGreaterThan(5000);
  });
});
