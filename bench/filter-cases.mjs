/** What the filters for testers cost, beside the same disk without them. Both sides are ours. */
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeHalfSparse } from './images.mjs';
import { outputOf } from './measure.mjs';

const CHILD = fileURLToPath(new URL('filters-child.mjs', import.meta.url));

/** Requests per second through a filter, at least `target` times those without. One run of the child has both. */
function beside(kind, filter, folder, target) {
  const waiting = { ours: [], peer: [] };
  const side = (which) => () => {
    if (waiting[which].length === 0) {
      const [ours, peer] = outputOf([process.execPath, CHILD, kind, filter, folder]).split(' ').map(Number);
      waiting.ours.push(ours);
      waiting.peer.push(peer);
    }
    return waiting[which].shift();
  };
  return { unit: 'req/s', target, ours: side('ours'), peer: side('peer') };
}

/** All cases: as in cases.mjs. */
export function filterCases(folder, place) {
  const make = (kind, filter, target) => () => {
    const disk = makeHalfSparse(join(folder, 'disk.raw'), 64);
    for (const name of ['plain.raw', 'copy.raw']) copyFileSync(disk, join(folder, name));
    return beside(kind, filter, folder, target);
  };
  const case_ = (kind, filter, what, target) => ({
    name: `filter ${what}, random ${kind}s of 4 KiB, beside none, ${place}`,
    make: make(kind, filter, target),
  });
  return [
    case_('read', 'blkdebug', 'blkdebug without rules', 0.95),
    case_('write', 'blkdebug', 'blkdebug without rules', 0.95),
    case_('read', 'blkdebug+rule', 'blkdebug with a rule that never fits', 0.02),
    case_('read', 'blkverify', 'blkverify', 0.35),
    case_('write', 'blkverify', 'blkverify', 0.05),
    case_('read', 'log', 'log', 0.9),
    case_('write', 'log', 'log', 0.2),
  ];
}
