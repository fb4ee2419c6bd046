import { describe, expect, test } from 'vitest';
import { jsonName, jsonNameOptions, protocolPrefix, stripPrefix } from './filename.ts';

describe('file names', () => {
  test.each([
    ['nbd:unix:/x', 'nbd'],
    ['a:b', 'a'],
    [':x', ''],
    ['/d/a:b', undefined],
    ['./a:b', undefined],
    ['plain', undefined],
  ])('BL-NAME-1: the prefix of %s', (name, prefix) => {
    expect(protocolPrefix(name)).toBe(prefix);
  });

  test.each([
    ['file:disk.raw', 'disk.raw'],
    ['file:a:b', './a:b'],
    ['file:/x/a:b', '/x/a:b'],
    ['disk.raw', 'disk.raw'],
  ])('BL-NAME-9: %s', (name, stripped) => {
    expect(stripPrefix(name, 'file')).toBe(stripped);
  });

  test('BL-NAME-8: json: names', () => {
    expect(jsonNameOptions('disk.raw')).toBeUndefined();
    const tree = jsonNameOptions('json:{"driver":"raw","file":{"filename":"x"}}');
    expect({ ...tree }).toEqual({ driver: 'raw', 'file.filename': 'x' });
    expect(() => jsonNameOptions('json:{')).toThrow(/^Could not parse the JSON options: /);
    expect(() => jsonNameOptions('json:[1]')).toThrow(/^Invalid JSON object given$/);
  });

  test('BL-REFRESH-5: the order and the separators other programs print', () => {
    const options = { driver: 'raw', offset: '12', size: 512, file: { driver: 'file', filename: 'ä' } };
    expect(jsonName(options)).toBe(
      'json:{"offset": "12", "driver": "raw", "size": 512, "file": {"driver": "file", "filename": "\\u00E4"}}',
    );
  });
});
