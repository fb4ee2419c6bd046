/** Mirrors every request to a trusted copy and compares, as QEMU's filter of that name (specification: the BV rules). */
import { defineFilter } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { option } from '../../core/options.ts';
import { type BlkverifyOptions, openBlkverify } from './node.ts';

export const blkverify = defineFilter<BlkverifyOptions>({
  name: 'blkverify',
  summary: 'Mirrors every request to a trusted copy and compares',
  options: {
    'on-mismatch': option.choice(['throw', 'exit', 'stop'], {
      help: 'what a mismatch does: fail the request, end the program, or fail all later requests too',
      fallback: 'throw',
      beyond: true,
    }),
    'discard-result': option.choice(['unverified', 'zero'], {
      help: 'what is known of discarded ranges: nothing, or that they read as zeroes',
      fallback: 'unverified',
      beyond: true,
    }),
    'flush-raw': option.boolean({ help: 'flush the raw copy too', fallback: false, beyond: true }),
  },
  filters: 'test',
  noFolder: true,
  children: {
    raw: { role: 'data', protocolLevel: true },
    test: { role: 'filtered', protocolLevel: false },
  },
  parseFilename(filename) {
    const prefix = 'blkverify:';
    // A name without the prefix is that of the image under test (BV-1).
    if (!filename.startsWith(prefix)) return { options: {}, children: { test: filename } };
    const rest = filename.slice(prefix.length);
    const colon = rest.indexOf(':');
    if (colon < 0) throw new BlockError('EINVAL', 'blkverify requires raw copy and original image path');
    return { options: {}, children: { raw: rest.slice(0, colon), test: rest.slice(colon + 1) } };
  },
  exactFilename(_given, child) {
    const [raw, test] = [child('raw'), child('test')];
    const name = `blkverify:${raw}:${test}`;
    return raw === '' || test === '' || name.length > 4095 ? undefined : name;
  },
  open: openBlkverify,
});
