/** Disks without storage, to measure everything above them: reads give zeroes, writes are forgotten. */
import { type DriverNode, defineProtocol, type Extent, NO_REOPEN_STEP, type OpenContext } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import { option } from '../core/options.ts';

interface NullOptions {
  readonly size: number;
  readonly 'latency-ns': number;
  readonly 'read-zeroes': boolean;
}

const options = {
  size: option.size({ help: 'size of the null block', fallback: 2 ** 30 }),
  'latency-ns': option.number({ help: 'nanoseconds (approximated) to wait before completing request', fallback: 0 }),
  'read-zeroes': option.boolean({ help: 'tell that the disk reads as zeroes', fallback: false }),
};

/** Options that change what is seen: a disk without them is known by the plain name. */
const STRONG = ['size', 'read-zeroes'] as const;

function defineNull(name: string, summary: string) {
  const plainName = `${name}://`;
  return defineProtocol<NullOptions>({
    name,
    summary,
    options,
    strongOptions: STRONG,
    parseFilename(filename) {
      if (filename === plainName) return {};
      throw new BlockError('EINVAL', `The only allowed filename for this driver is '${plainName}'`);
    },
    exactFilename: (given) => (STRONG.some((key) => given[key] !== undefined) ? undefined : plainName),
    open: async (context) => nullNode(context),
  });
}

export const nullCo = defineNull('null-co', 'No storage: reads give zeroes, writes are forgotten');
export const nullAio = defineNull('null-aio', 'The same as null-co, under its other name');

function nullNode({ options: { size, ...traits }, host }: OpenContext<NullOptions>): DriverNode {
  const milliseconds = traits['latency-ns'] / 1e6;
  const wait = () => (milliseconds > 0 ? host.clock.sleep(milliseconds) : Promise.resolve());
  const extent = (offset: number, length: number): Extent =>
    traits['read-zeroes'] ? { kind: 'zero', length, at: { offset } } : { kind: 'data', length };
  const atOnce: Pick<DriverNode, 'tryReadNow' | 'tryWriteNow'> = {
    tryReadNow(_offset, target) {
      target.fill(0);
      return true;
    },
    tryWriteNow: () => true,
  };
  return {
    length: () => size,
    async read(_offset, target) {
      await wait();
      // Whoever asks may get a used buffer: what is in it must not be seen as the disk's content.
      target.fill(0);
    },
    write: wait,
    // As in QEMU: writes that are forgotten are as durable as they will be.
    takesFua: (kind) => kind === 'write',
    writeZeroes: wait,
    discard: wait,
    flush: wait,
    status: async (offset, length) => extent(offset, length),
    tryStatusNow: extent,
    allocatedSize: () => 0,
    prepareReopen: async () => NO_REOPEN_STEP,
    ...(milliseconds > 0 ? {} : atOnce),
  };
}
