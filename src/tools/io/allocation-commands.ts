/** What the top image stores: `alloc` and `map` (T-ALLOC-1, T-MAP-IO). */
import { skipFilters } from '../../core/chain.ts';
import type { Disk } from '../../core/disk.ts';
import { asBlockError, errorText } from '../../core/errors.ts';
import { Failure } from '../failure.ts';
import { imageLength } from './access.ts';
import type { IoCommand } from './command.ts';
import { refuse } from './failure.ts';
import { sizeOf } from './numbers.ts';
import { ioSize } from './report.ts';

const DEFAULT_COUNT = 512;

interface Run {
  readonly allocated: boolean;
  readonly offset: number;
  readonly length: number;
}

/**
 * Runs of the range, as the layers tell them. Where an image has nothing below it that could show through, it decides
 * about all of its disk. Throws what asking for the status throws.
 */
async function* allocation(disk: Disk, offset: number, end: number): AsyncGenerator<Run> {
  const { driver } = skipFilters(disk.node);
  const decidesAll = driver.kind === 'format' && driver.supportsBacking !== true && driver.name !== 'raw';
  for (let at = offset; at < end; ) {
    // The rest of a file's last sector is as what is before it.
    const place = Math.min(at, Math.max(0, disk.length - 1));
    const length = Math.max(1, Math.min(end, disk.length) - place);
    const status = disk.tryStatusNow(place, length) ?? (await disk.status(place, length));
    const stop = place + status.length >= disk.length ? end : at + status.length;
    yield { allocated: decidesAll || (status.allocated && status.depth === 0), offset: at, length: stop - at };
    at = stop;
  }
}

export const allocCommand: IoCommand = {
  name: 'alloc',
  alias: 'a',
  min: 1,
  max: 2,
  usage: 'offset [count]',
  summary: 'checks if offset is allocated in the file',
  details: `
 Counts the bytes from OFFSET on that the image itself stores; COUNT: of how many, 512 if it is left out.

 Example:
 'alloc 0 1M'`,
  async run(session, { words: [offsetText = '', countText] }) {
    const { disk } = session;
    const offset = sizeOf(offsetText);
    const count = countText === undefined ? DEFAULT_COUNT : sizeOf(countText);
    const end = Math.min(imageLength(disk), offset + count);
    let sum = 0;
    try {
      for await (const run of allocation(disk, offset, end)) if (run.allocated) sum += run.length;
    } catch (error) {
      refuse(`is_allocated failed: ${errorText(asBlockError(error).code)}`);
    }
    session.line(`${sum}/${Math.max(0, end - offset)} bytes allocated at offset ${ioSize(offset)}`);
  },
};

export const mapCommand: IoCommand = {
  name: 'map',
  min: 0,
  max: 0,
  usage: '',
  summary: 'prints the allocated areas of a file',
  async run(session) {
    const { disk } = session;
    let last: Run | undefined;
    const tell = () => {
      if (last !== undefined) session.line(mapLine(last));
    };
    try {
      for await (const run of allocation(disk, 0, imageLength(disk))) {
        if (last?.allocated === run.allocated) last = { ...last, length: last.length + run.length };
        else {
          tell();
          last = run;
        }
      }
    } catch (cause) {
      throw new Failure(`Failed to get allocation status: ${errorText(asBlockError(cause).code)}`, { cause });
    }
    tell();
  },
};

function mapLine({ allocated, offset, length }: Run): string {
  const both = (bytes: number) => [ioSize(bytes), `(0x${bytes.toString(16)})`] as const;
  const [size, hexSize] = both(length);
  const [place, hexPlace] = both(offset);
  return `${size} ${hexSize} bytes ${allocated ? '    ' : 'not '}allocated at offset ${place} ${hexPlace}`;
}
