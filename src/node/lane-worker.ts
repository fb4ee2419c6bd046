/** A thread that works in lanes; built as a program of its own (see scripts/build.mjs). */

import { parentPort } from 'node:worker_threads';
import { transferBuffer } from '../bytes/transfer-buffer.ts';
import { type LaneWork, LONGEST_PIECE, runLane } from './lane.ts';

const buffer = transferBuffer(LONGEST_PIECE);

parentPort?.on('message', (work: LaneWork) => {
  runLane(work, buffer);
  parentPort?.postMessage(undefined);
});
