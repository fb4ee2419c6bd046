import { expect, test } from 'vitest';
import { MAP_HEADER, mapJson, mapRow } from './map-text.ts';

const DATA = {
  start: 65536,
  length: 4096,
  depth: 1,
  present: true,
  zero: false,
  data: true,
  offset: 327680,
  filename: 'm.vdi',
};

test('an entry as JSON, with its offset if it has one (T-MAP-2)', () => {
  expect(mapJson(DATA)).toBe(
    '{ "start": 65536, "length": 4096, "depth": 1, "present": true, "zero": false, "data": true, "offset": 327680}',
  );
  expect(mapJson({ start: 0, length: 0, depth: 0, present: false, zero: false, data: false })).toBe(
    '{ "start": 0, "length": 0, "depth": 0, "present": false, "zero": false, "data": false}',
  );
});

test('rows have columns of 16, zero has no prefix (T-MAP-3)', () => {
  expect(MAP_HEADER).toBe('Offset          Length          Mapped to       File\n');
  expect(mapRow({ ...DATA, start: 0, length: 0x100000, offset: 0x400 })).toBe(
    '0               0x100000        0x400           m.vdi\n',
  );
  expect(mapRow({ ...DATA, offset: 0 })).toBe('0x10000         0x1000          0               m.vdi\n');
});
