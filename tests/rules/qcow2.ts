/** The rules of the qcow2 format and its driver. */
import { numbered, type RuleBook } from './rule-book.ts';

const SECTIONS = {
  HDR: 10,
  EXT: 6,
  FEAT: 7,
  OPT: 6,
  MAP: 8,
  REF: 8,
  READ: 5,
  WR: 9,
  ORD: 11,
  DISC: 6,
  BACK: 2,
  DATA: 4,
  SNAP: 7,
  BMP: 8,
  CRYPT: 5,
  SIZE: 4,
  CR: 4,
  AM: 5,
  ME: 3,
  CORR: 3,
  CHK: 7,
  INFO: 1,
  EV: 2,
  LIM: 1,
  BEY: 2,
};

export const QCOW2: RuleBook = {
  name: 'qcow2',
  rules: Object.entries(SECTIONS).flatMap(([section, count]) => numbered(`Q-${section}`, count)),
  exempt: {},
  pending: [],
};
