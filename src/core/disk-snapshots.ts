/** Snapshots inside a disk's image, and the machine state beside the disk, for users of the library. */
import { requireUnblocked } from './blockers.ts';
import type { Disk } from './disk.ts';
import type { DriverSnapshots, DriverVmState, NewSnapshot, SnapshotInfo, SnapshotWorkOptions } from './driver.ts';
import { BlockError, codeOf, notSupported, withErrno } from './errors.ts';
import type { BlockNode } from './node.ts';
import * as request from './request.ts';

/** Which snapshot: its id, or else its name; or what has both, as far as they are given. */
export type SnapshotChoice = string | { readonly id?: string | undefined; readonly name?: string | undefined };

/** What is kept with a snapshot beside its name, and by what its making can be stopped. */
export interface CreateSnapshotOptions extends Partial<Omit<NewSnapshot, 'name'>>, SnapshotWorkOptions {}

/**
 * What `disk.snapshots` is. A snapshot is a moment of the disk that its image keeps, in the same file. All changes need a
 * writable disk, wait until no request is under way, and hold up others meanwhile. Methods throw BlockError: ENOTSUP where
 * the format has no snapshots, ENOENT for one that is not there.
 */
export class DiskSnapshots {
  /** Machine state beside the disk; a snapshot with a `vmStateSize` takes it over. */
  readonly vmState: VmState;
  readonly #disk: Disk;
  readonly #mayResize: (work: () => Promise<void>) => Promise<void>;

  /** `mayResize`: runs work while the disk has the permission to change its size. */
  constructor(disk: Disk, mayResize: (work: () => Promise<void>) => Promise<void>) {
    this.#disk = disk;
    this.#mayResize = mayResize;
    this.vmState = new VmState(disk);
  }

  /** Whether the format has snapshots. */
  get supported(): boolean {
    return holder(this.#disk.node, 'snapshots') !== undefined;
  }

  /** In the order in which they were made. */
  list(): readonly SnapshotInfo[] {
    return this.#driver().list();
  }

  /** The same; none where there can be none. */
  known(): readonly SnapshotInfo[] {
    return snapshotsIn(this.#disk.node);
  }

  /** The one that is meant; undefined: there is none. */
  find(which: SnapshotChoice): SnapshotInfo | undefined {
    const list = this.list();
    return list[indexOf(list, which)];
  }

  /** Keeps the disk as it is now. Names may repeat and be empty; the id is new. EFBIG if there are 65536. */
  async create(name = '', { signal, ...given }: CreateSnapshotOptions = {}): Promise<SnapshotInfo> {
    const driver = this.#driver();
    this.#requireWritable();
    requireUnblocked(this.#disk.node, 'internal-snapshot', this.#disk.node.deviceOrNodeName);
    const wanted = { time: this.#disk.graph.host.clock.wall(), ...given, name };
    await this.#alone(() => driver.create(wanted, signal === undefined ? {} : { signal }));
    const made = driver.list().at(-1);
    if (made === undefined) throw this.#error('EIO', 'The snapshot is not there');
    return made;
  }

  /** Makes the disk what it was then, its size too. What was written since is lost. EBUSY while it has dirty bitmaps. */
  async apply(which: SnapshotChoice, options: SnapshotWorkOptions = {}): Promise<void> {
    const driver = this.#driver();
    this.#requireWritable();
    await this.#mayResize(() =>
      this.#replacing(async () => {
        const { node } = this.#disk;
        if (node.trackers.some((tracker) => (tracker.query?.().length ?? 0) > 0)) {
          throw this.#error('EBUSY', 'Device has active dirty bitmaps');
        }
        const index = indexOf(driver.list(), which);
        if (index < 0) throw withErrno('ENOENT', 'Failed to load snapshot', { node: node.name });
        await driver.apply(index, options);
      }),
    );
  }

  /** The disk stays as it is. */
  async delete(which: SnapshotChoice, options: SnapshotWorkOptions = {}): Promise<void> {
    const driver = this.#driver();
    this.#requireWritable();
    requireUnblocked(this.#disk.node, 'internal-snapshot-delete', this.#disk.node.deviceOrNodeName);
    await this.#alone(async () => {
      const index = indexOf(driver.list(), which);
      if (index < 0) throw this.#error('ENOENT', "Can't find the snapshot");
      await driver.delete(index, options);
    });
  }

  /** Shows it instead of the disk until that is closed, with its size; for disks that are opened to be read only. */
  async show(which: SnapshotChoice): Promise<void> {
    const { node } = this.#disk;
    const driver = holder(node, 'snapshots')?.impl.snapshots;
    if (driver === undefined) {
      const what = `Block format '${node.driver.name}' used by device '${node.deviceName}'`;
      throw this.#error('ENOTSUP', `${what} does not support temporarily loading internal snapshots`);
    }
    if (node.writable) throw this.#error('EINVAL', 'Device is not readonly');
    await this.#replacing(async () => {
      const index = indexOf(snapshotsIn(node), which);
      if (index < 0) throw this.#error('ENOENT', "Can't find snapshot");
      await driver.show(index);
    });
  }

  #driver(): DriverSnapshots {
    const driver = holder(this.#disk.node, 'snapshots')?.impl.snapshots;
    if (driver !== undefined) return driver;
    throw this.#error('ENOTSUP', 'Block driver does not support snapshots');
  }

  #requireWritable(): void {
    if (!this.#disk.writable) throw this.#error('EPERM', 'Block node is read-only');
  }

  #error(code: BlockError['code'], text: string): BlockError {
    return new BlockError(code, text, { node: this.#disk.nodeName });
  }

  /** With no request beside it. */
  async #alone(work: () => Promise<void>): Promise<void> {
    const { node, graph } = this.#disk;
    await graph.alone(node, async () => {
      try {
        await work();
      } finally {
        if (node.writable) node.writeGeneration++;
      }
    });
  }

  /** The same for what may leave another disk in place of this one: all that show it are told. */
  async #replacing(work: () => Promise<void>): Promise<void> {
    await this.#alone(async () => {
      try {
        await work();
      } finally {
        let each: BlockNode | undefined = this.#disk.node;
        for (; each !== undefined; each = each.filtered?.node) {
          request.refreshLimits(each);
          request.noteLength(each);
          for (const tracker of each.trackers) tracker.changed(0, each.impl.length());
        }
      }
    });
  }
}

/** Bytes from the start of the saved state, which grows as it is written (Q-SNAP-3). ENOTSUP where the format has none. */
export class VmState {
  readonly #disk: Disk;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  /** Fills a buffer, or makes one of `length` bytes. What was never written is zero. */
  async read(offset: number, wanted: number | Uint8Array): Promise<Uint8Array> {
    const target = typeof wanted === 'number' ? new Uint8Array(wanted) : wanted;
    await this.#run((vmState) => vmState.read(offset, target));
    return target;
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    if (!this.#disk.writable) throw new BlockError('EPERM', 'Block node is read-only', { node: this.#disk.nodeName });
    await this.#run((vmState) => vmState.write(offset, source));
    this.#disk.node.writeGeneration++;
  }

  async #run(work: (vmState: DriverVmState) => Promise<void>): Promise<void> {
    await this.#disk.node.whenResumed();
    const { node } = this.#disk;
    const vmState = holder(node, 'vmState')?.impl.vmState;
    if (vmState === undefined) throw notSupported(node, 'machine state');
    const tracked = node.tracker.begin(0, 0, false);
    try {
      await work(vmState);
    } finally {
      node.tracker.end(tracked);
    }
  }
}

/** All snapshots in a node's image; none where there can be none. */
export function snapshotsIn(node: BlockNode): readonly SnapshotInfo[] {
  try {
    return holder(node, 'snapshots')?.impl.snapshots?.list() ?? [];
  } catch (error) {
    if (codeOf(error) === 'ENOTSUP') return [];
    throw error;
  }
}

/** An id goes before a name. */
function indexOf(list: readonly SnapshotInfo[], which: SnapshotChoice): number {
  if (typeof which === 'string') {
    const byId = list.findIndex(({ id }) => id === which);
    return byId >= 0 ? byId : list.findIndex(({ name }) => name === which);
  }
  const { id, name } = which;
  if (id === undefined && name === undefined) return -1;
  return list.findIndex((each) => (id === undefined || each.id === id) && (name === undefined || each.name === name));
}

/** The node that has it: this one, or the one that filters show. */
function holder(node: BlockNode, what: 'snapshots' | 'vmState'): BlockNode | undefined {
  let asked: BlockNode | undefined = node;
  while (asked !== undefined && asked.impl[what] === undefined) asked = asked.filtered?.node;
  return asked;
}
