import { expect, test } from 'vitest';
import type { MapEntry } from '../../jobs/map.ts';
import { jsonListing, type MapListing, tableListing } from './map-text.ts';

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
const NOTHING = { start: 0, length: 0, depth: 0, present: false, zero: false, data: false };

function listed(make: (write: (text: Uint8Array) => void) => MapListing, entries: readonly MapEntry[], close = true) {
  let text = '';
  const listing = make((bytes) => {
    text += new TextDecoder().decode(bytes);
  });
  for (const entry of entries) listing.add(entry);
  if (close) listing.close();
  listing.flush();
  return text;
}

test('entries as JSON, with their offset if they have one (T-MAP-2)', () => {
  expect(listed(jsonListing, [DATA, NOTHING])).toBe(
    '[{ "start": 65536, "length": 4096, "depth": 1, "present": true, "zero": false, "data": true, "offset": 327680},\n' +
      '{ "start": 0, "length": 0, "depth": 0, "present": false, "zero": false, "data": false}]\n',
  );
});

test('JSON that is given up is left open (T-MAP-4)', () => {
  expect(listed(jsonListing, [NOTHING], false)).toMatch(/^\[\{.*\},\n$/);
  expect(listed(jsonListing, [], false)).toBe('[');
});

test('rows have columns of 16, zero has no prefix (T-MAP-3)', () => {
  const entries = [{ ...DATA, start: 0, length: 0x100000, offset: 0x400 }, { ...DATA, offset: 0 }, DATA];
  expect(listed(tableListing, entries)).toBe(
    'Offset          Length          Mapped to       File\n' +
      '0               0x100000        0x400           m.vdi\n' +
      '0x10000         0x1000          0               m.vdi\n' +
      '0x10000         0x1000          0x50000         m.vdi\n',
  );
});

test('a column that is full runs into the next, names may hold any text', () => {
  const entry = { ...DATA, start: Number.MAX_SAFE_INTEGER, filename: 'ü.vdi' };
  expect(listed(tableListing, [entry])).toContain('0x1fffffffffffff0x1000          0x50000         ü.vdi\n');
});

test('listings longer than a buffer are whole', () => {
  const entries = Array.from({ length: 10_000 }, (_, index) => ({ ...DATA, start: index * 2 ** 33 }));
  const parsed = JSON.parse(listed(jsonListing, entries)) as { start: number }[];
  expect(parsed.map(({ start }) => start)).toEqual(entries.map(({ start }) => start));
});
