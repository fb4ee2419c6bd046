/** Every rule of the specification has a test that cites it by number, is exempt for a reason, or is known to be missing. */
import { describe, expect, test } from 'vitest';
import { BLOCK_LAYER } from './rules/block-layer.ts';
import { BLKDEBUG, BLKVERIFY } from './rules/faults.ts';
import { NBD } from './rules/nbd.ts';
import { QCOW2 } from './rules/qcow2.ts';
import { citedRules } from './rules/rule-book.ts';
import { VDI } from './rules/vdi.ts';
import { isTest, textFiles } from './tidy/source-files.ts';

const tests = textFiles.filter(({ path }) => isTest(path) && path !== 'tests/rules.test.ts');
const cited = new Set(tests.flatMap(({ text }) => citedRules(text)));

const BOOKS = [BLOCK_LAYER, VDI, BLKDEBUG, BLKVERIFY, NBD, QCOW2];

describe.each(BOOKS)('rules: $name', ({ rules, exempt, pending }) => {
  const known = new Set(rules);
  const waived = new Set([...Object.keys(exempt), ...pending]);

  test('each is cited by a test, or exempt, or pending', () => {
    expect(rules.filter((rule) => !cited.has(rule) && !waived.has(rule))).toEqual([]);
  });

  test('what is pending has no test: take it off the list when it has one', () => {
    expect(pending.filter((rule) => cited.has(rule))).toEqual([]);
  });

  test('what is exempt or pending is a rule, and not both', () => {
    expect([...waived].filter((rule) => !known.has(rule))).toEqual([]);
    expect(pending.filter((rule) => rule in exempt)).toEqual([]);
  });
});

test('tests cite rules that there are', () => {
  const known = new Set(BOOKS.flatMap(({ rules }) => rules));
  expect([...cited].filter((rule) => !known.has(rule))).toEqual([]);
});

test('a citation is the whole number, with the section', () => {
  expect(citedRules('BL-OPEN-2, -3; BL-OPEN-30 to BL-OPEN-31, V-1.1, XBL-1, RV-2, BD-3, XBD-4, BV-17')).toEqual([
    'BL-OPEN-2',
    'BL-OPEN-30',
    'BL-OPEN-31',
    'V-1',
    'BD-3',
    'BV-17',
  ]);
});
