/** What the driver offers about snapshots and machine state (Q-SNAP). */
import type { DriverSnapshots, DriverVmState, SnapshotInfo } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import type { Qcow2Image } from './image.ts';
import type { Snapshot } from './snapshot-table.ts';
import { applySnapshot, createSnapshot, deleteSnapshot, requireSnapshots, showSnapshot } from './snapshots.ts';
import { readVmState, writeVmState } from './vm-state.ts';

/** `image`: what is open now. */
export function snapshotsOf(image: () => Qcow2Image): DriverSnapshots {
  const at = (index: number): Snapshot => {
    const found = image().snapshots[index];
    if (found !== undefined) return found;
    throw new BlockError('ENOENT', "Can't find the snapshot", { node: image().node });
  };
  return {
    list() {
      requireSnapshots(image());
      return image().snapshots.map(infoOf);
    },
    create: (wanted, options) => createSnapshot(image(), wanted, options),
    apply: (index, options) => applySnapshot(image(), at(index), options),
    delete: (index, options) => deleteSnapshot(image(), at(index), options),
    show: (index) => showSnapshot(image(), at(index)),
  };
}

export function vmStateOf(image: () => Qcow2Image): DriverVmState {
  return {
    read: (offset, target) => readVmState(image(), offset, target),
    write: (offset, source) => writeVmState(image(), offset, source),
  };
}

function infoOf(snapshot: Snapshot): SnapshotInfo {
  const text = new TextDecoder('utf-8', { ignoreBOM: true });
  return {
    id: text.decode(snapshot.id),
    name: text.decode(snapshot.name),
    time: snapshot.seconds * 1000 + Math.floor(snapshot.nanoseconds / 1_000_000),
    nanoseconds: snapshot.nanoseconds,
    vmStateSize: Number(snapshot.vmStateSize),
    vmClock: snapshot.vmClockNanoseconds,
    instructionCount: snapshot.instructionCount,
    diskSize: snapshot.diskSize === undefined ? undefined : Number(snapshot.diskSize),
  };
}
