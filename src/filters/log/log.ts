/** Records every change of a disk in a second one, for replaying it and for trying what a power cut would leave. */
import { defineFilter } from '../../core/driver.ts';
import { option } from '../../core/options.ts';
import { SECTOR_MIN } from './format.ts';
import { type LogOptions, openLog } from './node.ts';

function defineLog(name: string, summary: string, asQemu: boolean) {
  return defineFilter<LogOptions>({
    name,
    summary,
    options: {
      'log-sector-size': option.size({
        help: 'unit of the log, bytes; requests are aligned to it',
        fallback: SECTOR_MIN,
      }),
      'log-append': option.boolean({ help: 'go on with a log that is there', fallback: false }),
      'log-super-update-interval': option.number({
        help: 'entries after which the superblock counts them, besides at each flush',
        fallback: 4096,
      }),
    },
    strongOptions: [],
    children: { log: { role: 'data', protocolLevel: true } },
    open: (context) => openLog(context, asQemu),
  });
}

export const log = defineLog('log', 'Records every change in a second disk, as dm-log-writes does', false);
/** Its logs are those of QEMU byte for byte, which have neither FUA nor changes of length. */
export const blklogwrites = defineLog('blklogwrites', 'The same, with the entries that QEMU writes', true);
