/** Snapshots inside images, where a command line asks for one. No format here has any. */
import type { Disk } from '../core/disk.ts';
import { Failure } from './failure.ts';

export function noSnapshots(disk: Disk): Failure {
  const why = `Block format '${disk.format}' used by device '' does not support temporarily loading internal snapshots`;
  return new Failure(`Failed to load snapshot: ${why}`);
}
