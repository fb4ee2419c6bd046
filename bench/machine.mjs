/** What the numbers were taken on. No names of the machine. */
import { readFileSync, statfsSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { outputOf } from './measure.mjs';

const FILE_SYSTEMS = new Map([
  [0xef53, 'ext4'],
  [0x01021994, 'tmpfs'],
  [0x58465342, 'xfs'],
  [0x9123683e, 'btrfs'],
]);

/** The file system of a folder, by name where it is a common one. */
export function fileSystemOf(folder) {
  const { type } = statfsSync(folder);
  return FILE_SYSTEMS.get(type) ?? `type 0x${type.toString(16)}`;
}

export function describeMachine() {
  const version = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version;
  const peer = /version ([^\n]*)/.exec(outputOf(['qemu-img', '--version']))?.[1] ?? 'unknown';
  return [
    `${cpus()[0]?.model ?? 'unknown processor'}, ${availableParallelism()} cores, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    `Linux ${release().replace(/^(\d+\.\d+).*/, '$1')}, Node.js ${process.version}`,
    `diskwright ${version}; qemu-img ${peer}`,
  ];
}
