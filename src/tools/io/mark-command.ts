/** `mark`: a name in the log of a `log` node, to replay to. Ours alone. */
import { mark } from '../../filters/log/node.ts';
import { Failure } from '../failure.ts';
import type { IoCommand } from './command.ts';
import { findNode } from './find-node.ts';

const isLog = (driver: string) => driver === 'log' || driver === 'blklogwrites';

export const markCommand: IoCommand = {
  name: 'mark',
  min: 1,
  max: 1,
  beyond: true,
  usage: 'name',
  summary: 'puts a named mark into the log of writes',
  details: `
 The image must be open through the filter log:

 open -o driver=log,file.driver=file,file.filename=disk.raw,log.driver=file,log.filename=disk.log
 write 0 4k
 mark written

 All that was done before comes before the mark; requests that are under way may come to be before it or behind it.
 diskwright replay --mark written disk.log copy.raw - makes of a copy what the disk was then`,
  async run({ disk }, { words: [name = ''] }) {
    const node = findNode(disk.node, isLog);
    if (node === undefined) throw new Failure('No log node is there to mark: open the image through the filter log');
    await mark(node, name);
  },
};
