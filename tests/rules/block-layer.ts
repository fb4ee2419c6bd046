/** The rules of the block layer. */
import { numbered, type RuleBook } from './rule-book.ts';

const SECTIONS = {
  TERM: 9,
  DRV: 8,
  NAME: 9,
  OPEN: 31,
  CLOSE: 6,
  CHAIN: 17,
  REOPEN: 8,
  COMMIT: 4,
  CHECK: 1,
  SIZE: 7,
  INFO: 15,
  BLOCK: 3,
  PERM: 7,
  BITMAP: 13,
  HB: 7,
  CREATE: 9,
  MEDIA: 2,
  DEBUG: 2,
  CTX: 5,
  FILTER: 3,
  REFRESH: 6,
  MISC: 3,
};

const GONE = 'gone today';

export const BLOCK_LAYER: RuleBook = {
  name: 'block layer',
  rules: Object.entries(SECTIONS).flatMap(([section, count]) => numbered(`BL-${section}`, count)),
  exempt: {
    'BL-NAME-2': 'for Windows only',
    'BL-CLOSE-3': GONE,
    'BL-INFO-4': GONE,
    'BL-INFO-6': GONE,
    'BL-INFO-7': GONE,
    'BL-INFO-8': GONE,
    'BL-FILTER-1': `${GONE}: BL-FILTER-3 stands in its place`,
  },
  pending: [],
};
