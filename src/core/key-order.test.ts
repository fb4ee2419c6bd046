import { describe, expect, test } from 'vitest';
import { hashOrder } from './key-order.ts';

/** The lists of T-FMT-4, and those its texts show. */
const LISTS: Readonly<Record<string, string>> = {
  child: 'name info',
  'format-specific': 'type data',
  'qcow2 data':
    'compat compression-type lazy-refcounts bitmaps refcount-bits data-file encrypt data-file-raw corrupt extended-l2',
  bitmap: 'flags name granularity',
  'vmdk data': 'cid parent-cid create-type extents',
  'vmdk extent': 'virtual-size filename cluster-size format',
  snapshot: 'icount vm-clock-nsec name date-sec date-nsec vm-clock-sec id vm-state-size',
  check:
    'image-end-offset compressed-clusters total-clusters corruptions corruptions-fixed check-errors leaks leaks-fixed allocated-clusters filename format fragmented-clusters',
  measure: 'bitmaps required fully-allocated',
  'json: name': 'offset driver file',
};

describe('key order (T-FMT-4)', () => {
  for (const [name, list] of Object.entries(LISTS)) {
    test(`${name}: the documented order, however the keys came`, () => {
      const keys = list.split(' ');
      expect(hashOrder(keys).join(' ')).toBe(list);
      expect(hashOrder(keys.toReversed()).join(' ')).toBe(list);
      expect(hashOrder(keys.toSorted()).join(' ')).toBe(list);
    });
  }

  test('node: children and backing-filename-format share a bucket, the one added last comes first', () => {
    const rest =
      'snapshots virtual-size filename cluster-size format actual-size format-specific full-backing-filename encrypted backing-filename dirty-flag';
    const keys = rest.split(' ');
    expect(hashOrder(['backing-filename-format', ...keys, 'children']).join(' ')).toBe(
      `children backing-filename-format ${rest}`,
    );
    expect(hashOrder(['children', ...keys, 'backing-filename-format']).join(' ')).toBe(
      `backing-filename-format children ${rest}`,
    );
  });
});
