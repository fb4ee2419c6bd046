/** A thread that works in lanes; built as a program of its own (see scripts/build.mjs). */
import { parentPort } from 'node:worker_threads';
import { type LaneWork, LONGEST_PIECE, runLane } from './lane.ts';

const buffer = new Uint8Array(LONGEST_PIECE);

parentPort?.on('message', (work: LaneWork) => {
  runLane(work, buffer);
  parentPort?.postMessage(undefined);
});
