/** The images that are measured on. */

import { randomFillSync } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { outputOf } from './measure.mjs';

const MIB = 1024 * 1024;

/** A sparse file in which every other run of `run` MiB is random bytes. */
export function makeHalfSparse(path, megabytes, run = 1) {
  if (existsSync(path)) return path;
  const file = openSync(path, 'w');
  ftruncateSync(file, megabytes * MIB);
  const buffer = Buffer.allocUnsafe(MIB);
  for (let at = 0; at < megabytes; at++) {
    if (Math.floor(at / run) % 2 === 1) continue;
    randomFillSync(buffer);
    writeSync(file, buffer, 0, MIB, at * MIB);
  }
  fsyncSync(file);
  closeSync(file);
  return path;
}

/** A sparse file in which every other MiB is of Node's own program, over and over. */
export function makeHalfProgram(path, megabytes) {
  if (existsSync(path)) return path;
  const program = readFileSync(process.execPath);
  const file = openSync(path, 'w');
  ftruncateSync(file, megabytes * MIB);
  for (let at = 0; at < megabytes; at += 2) {
    const from = (at * MIB) % (program.length - MIB);
    writeSync(file, program, from, MIB, at * MIB);
  }
  fsyncSync(file);
  closeSync(file);
  return path;
}

/** The peer's compressed image of a raw one. */
export function packedByPeer(from, to, type) {
  const options = ['-c', '-f', 'raw', '-O', 'qcow2', '-o', `compression_type=${type}`];
  if (!existsSync(to)) outputOf(['qemu-img', 'convert', ...options, from, to]);
  return to;
}

/** The peer's conversion of an image. */
export function convertByPeer(from, fromFormat, to, toFormat) {
  if (!existsSync(to)) outputOf(['qemu-img', 'convert', '-f', fromFormat, '-O', toFormat, from, to]);
  return to;
}

/** A qcow2 image of 1 TiB, every cluster of it mapped to a hole of the file. */
export function makeHugeQcow2(path) {
  if (!existsSync(path))
    outputOf(['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', path, '1T']);
  return path;
}

/** A VDI of 1 TiB, every other block of it allocated; the blocks' content is a hole in the file. */
export function makeHugeVdi(path) {
  if (existsSync(path)) return path;
  outputOf(['qemu-img', 'create', '-q', '-f', 'vdi', path, '1T']);
  const file = openSync(path, 'r+');
  const blocks = MIB;
  const map = new Uint32Array(blocks).fill(0xffffffff);
  let used = 0;
  for (let block = 0; block < blocks; block += 2) map[block] = used++;
  writeSync(file, map, 0, map.byteLength, 512);
  writeSync(file, Uint32Array.of(used), 0, 4, 0x184);
  ftruncateSync(file, 512 + map.byteLength + used * MIB);
  closeSync(file);
  return path;
}

/** An image of `megabytes` that are all stored. */
export function makeFull(path, megabytes, format) {
  if (existsSync(path)) return path;
  outputOf(['qemu-img', 'create', '-q', '-f', format, path, `${megabytes}M`]);
  outputOf(['qemu-io', '-t', 'writeback', '-f', format, '-c', `write -P 7 0 ${megabytes}M`, path]);
  return path;
}
