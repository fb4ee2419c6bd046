/** What the filters for testers cost, beside the same disk without them. Both sides are ours. */
import { copyFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeHalfSparse } from './images.mjs';
import { outputOf } from './measure.mjs';

const CHILD = fileURLToPath(new URL('filters-child.mjs', import.meta.url));

/** Requests per second through a filter, at least `target` times those without. */
function beside(kind, filter, folder, target) {
  const side = (which) => () => Number(outputOf([process.execPath, CHILD, kind, which, folder]));
  return { unit: 'req/s', target, ours: side(filter), peer: side('none') };
}

/** All cases: as in cases.mjs. */
export function filterCases(folder, place) {
  const make = (kind, filter, target) => () => {
    const disk = join(folder, 'disk.raw');
    const copy = join(folder, 'copy.raw');
    if (!existsSync(disk)) makeHalfSparse(disk, 64);
    if (!existsSync(copy)) copyFileSync(disk, copy);
    return beside(kind, filter, folder, target);
  };
  const case_ = (kind, filter, what, target) => ({
    name: `filter ${what}, random ${kind}s of 4 KiB, beside none, ${place}`,
    make: make(kind, filter, target),
  });
  return [
    case_('read', 'blkdebug', 'blkdebug without rules', 0.95),
    case_('write', 'blkdebug', 'blkdebug without rules', 0.95),
    case_('read', 'blkdebug+rule', 'blkdebug with a rule that never fits', 0.05),
    case_('read', 'blkverify', 'blkverify', 0.4),
    case_('write', 'blkverify', 'blkverify', 0.05),
    case_('read', 'log', 'log', 0.95),
    case_('write', 'log', 'log', 0.05),
  ];
}
