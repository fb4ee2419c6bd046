/** The file's bytes as they are, or a window of them given by `offset` and `size`. */
import { alignUp } from '../bytes/align.ts';
import { type DriverNode, defineFormat, type Extent, NO_REOPEN_STEP, type OpenContext } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import { option } from '../core/options.ts';

/** Disk sizes are whole sectors (BL-SIZE-1); a file's odd tail is completed with zeroes. */
const SECTOR = 512;

interface RawOptions {
  readonly offset: number | undefined;
  readonly size: number | undefined;
}

interface RawCreateOptions {
  readonly size: number | undefined;
}

export const raw = defineFormat<RawOptions, RawCreateOptions>({
  name: 'raw',
  summary: 'Plain disk contents, without metadata',
  options: {
    offset: option.size<number | undefined>({ help: 'offset in the disk where the image starts', fallback: undefined }),
    size: option.size<number | undefined>({ help: 'virtual disk size', fallback: undefined }),
  },
  strongOptions: ['offset', 'size'],
  events: ['read_aio', 'write_aio'],
  probe: () => 1,
  // A window shows other data than the file does, so it must not let the file be resized below it.
  fileRole: ({ offset, size }) => (offset === undefined && size === undefined ? 'filtered' : 'data'),
  createsThroughProtocol: true,
  create: {
    options: { size: option.size<number | undefined>({ help: 'Virtual disk size', fallback: undefined, shown: true }) },
    async run() {},
  },
  async measure({ size }) {
    const required = alignUp(size, SECTOR);
    return { required, fullyAllocated: required };
  },
  async open(context) {
    checkWindow(context);
    return openRaw(context);
  },
});

function checkWindow({ options, file }: OpenContext<RawOptions>): void {
  const { offset = 0, size } = options;
  const length = alignUp(file.length(), SECTOR);
  if (offset > length) {
    const text = `Offset (${BigInt(offset)}) cannot be greater than size of the containing file (${length})`;
    throw new BlockError('EINVAL', text);
  }
  if (size === undefined) return;
  if (offset + size > length) {
    // Two blanks, as other programs print it.
    const text = `The sum of offset (${offset}) and size (${BigInt(size)}) has to be smaller or equal to the  actual size of the containing file (${length})`;
    throw new BlockError('EINVAL', text);
  }
  if (size % SECTOR !== 0) throw new BlockError('EINVAL', `Specified size is not multiple of ${SECTOR}`);
}

function openRaw({ options, file, event, childInfo }: OpenContext<RawOptions>): DriverNode {
  const { offset: base = 0, size } = options;
  const extent = (offset: number, length: number): Extent => ({
    kind: 'delegate',
    length,
    at: { child: file.name, offset: base + offset },
  });
  /** Where an event matters, the child answers nothing at once, so that the fast path needs none (BD-41). */
  const after = (name: string, work: () => Promise<void>) => event(name)?.then(work) ?? work();
  return {
    length: () => size ?? Math.max(0, alignUp(alignUp(file.length(), SECTOR) - base, SECTOR)),
    read: (offset, target) => after('read_aio', () => file.read(base + offset, target)),
    tryReadNow: (offset, target) => file.tryReadNow(base + offset, target),
    write: (offset, source, flags) => after('write_aio', () => file.write(base + offset, source, flags)),
    tryWriteNow: (offset, source) => file.tryWriteNow(base + offset, source),
    takesFua: (kind) => file.takesFua(kind),
    writeZeroes: (offset, length, flags) => file.writeZeroes(base + offset, length, flags),
    discard: (offset, length) => file.discard(base + offset, length),
    flush: () => file.flush(),
    status: async (offset, length) => extent(offset, length),
    tryStatusNow: extent,
    place: (offset) => ({ child: file.name, offset: base + offset }),
    limits: () => ({ preferred: file.limits().preferred }),
    async truncate(length, truncateOptions) {
      if (size !== undefined) throw new BlockError('ENOTSUP', 'Cannot resize fixed-size raw disks');
      if (!Number.isSafeInteger(base + length)) throw new BlockError('EFBIG', 'File too large');
      await file.truncate(base + length, truncateOptions);
    },
    // What is known of it is what is known of its file (BL-INFO-1).
    info() {
      const { dirty } = childInfo('file') ?? {};
      return dirty === undefined ? undefined : { dirty };
    },
    prepareReopen: async () => NO_REOPEN_STEP,
    zeroInit: () => file.zeroInit(),
  };
}
