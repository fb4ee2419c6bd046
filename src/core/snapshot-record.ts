/** A snapshot with the members that QEMU's programs give it. */
import type { SnapshotInfo } from './driver.ts';

const NANOSECONDS = 1_000_000_000n;

/** A snapshot as qemu-img prints it in JSON. */
export interface SnapshotRecord {
  readonly id: string;
  readonly name: string;
  /** Bytes. */
  readonly 'vm-state-size': number;
  readonly 'date-sec': number;
  readonly 'date-nsec': number;
  readonly 'vm-clock-sec': number;
  readonly 'vm-clock-nsec': number;
  /** Absent: not known. */
  readonly icount?: bigint;
}

export function snapshotRecord(snapshot: SnapshotInfo): SnapshotRecord {
  const { id, name, vmStateSize, time, nanoseconds, vmClock, instructionCount } = snapshot;
  return {
    ...(instructionCount !== undefined && { icount: instructionCount }),
    'vm-clock-nsec': Number(vmClock % NANOSECONDS),
    name,
    'date-sec': Math.floor(time / 1000),
    'date-nsec': nanoseconds,
    'vm-clock-sec': Number(vmClock / NANOSECONDS),
    id,
    'vm-state-size': vmStateSize,
  };
}
