/** A thread that works in lanes; built as a program of its own (see scripts/build.mjs). */

import { parentPort } from 'node:worker_threads';
import { transferBuffer } from '../bytes/transfer-buffer.ts';
import { type LaneWork, LONGEST_PIECE, runLane } from './lane.ts';
import { Syscalls } from './syscalls.ts';

const buffer = transferBuffer(LONGEST_PIECE);
const syscalls = new Syscalls(() => {});

/** Undefined: there will be no more. */
parentPort?.on('message', (work: LaneWork | undefined) => {
  if (work === undefined) return parentPort?.close();
  runLane(work, buffer, syscalls);
  parentPort?.postMessage(undefined);
});
