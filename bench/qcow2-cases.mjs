/** What is measured of qcow2: copies, requests in one process, opening chains. As in cases.mjs. */
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { convertByPeer, makeHalfSparse } from './images.mjs';
import { outputOf } from './measure.mjs';

const child = (name) => fileURLToPath(new URL(name, import.meta.url));

/** Copies of a half-sparse disk. `convert` makes a case of two formats, as for VDI. */
function copyCases(folder, megabytes, convert) {
  const raw = () => makeHalfSparse(join(folder, 'half.raw'), megabytes);
  const images = { raw, qcow2: () => convertByPeer(raw(), 'raw', join(folder, 'half.qcow2'), 'qcow2') };
  const drop = () => {
    for (const name of ['half.raw', 'half.qcow2']) rmSync(join(folder, name), { force: true });
  };
  return [
    convert('raw', 'qcow2', images),
    convert('qcow2', 'raw', images),
    { ...convert('qcow2', 'qcow2', images), after: drop },
  ];
}

/** Requests per second in one process; the peer's pattern, a step from one to the next. */
function requests({ kind, path, depth, step, count = 75_000, target, prepare = () => {} }) {
  const write = kind === 'write' ? ['-w'] : [];
  const args = ['bench', '-f', 'qcow2', '-t', 'writeback', '-c', count, '-d', depth, '-S', step, ...write, path];
  return {
    unit: 'req/s',
    target,
    ours() {
      prepare();
      const own = [child('requests-child.mjs'), kind, path, count, depth, 'qcow2', step];
      return Number(outputOf([process.execPath, ...own.map(String)]));
    },
    peer() {
      prepare();
      const seconds = /completed in ([\d.]+) seconds/.exec(outputOf(['qemu-img', ...args.map(String)]))?.[1];
      return count / Number(seconds);
    },
  };
}

function makeFull(path) {
  if (existsSync(path)) return path;
  outputOf(['qemu-img', 'create', '-q', '-f', 'qcow2', path, '512M']);
  outputOf(['qemu-io', '-t', 'writeback', '-f', 'qcow2', '-c', 'write -P 7 0 512M', path]);
  return path;
}

function requestCases(folder, place) {
  const full = () => makeFull(join(folder, 'full.qcow2'));
  const fresh = join(folder, 'fresh.qcow2');
  const makeFresh = () => {
    rmSync(fresh, { force: true });
    outputOf(['qemu-img', 'create', '-q', '-f', 'qcow2', fresh, '1G']);
  };
  // Requests come back to the same place only after all others.
  const scattered = 4096 * 10_007;
  const on = (kind, depth, target) => () => requests({ kind, path: full(), depth, step: scattered, target });
  return [
    { name: `qcow2 scattered reads of 4 KiB, depth 1, ${place}`, make: on('read', 1, 3) },
    { name: `qcow2 scattered reads of 4 KiB, depth 32, ${place}`, make: on('read', 32, 1.3) },
    { name: `qcow2 scattered writes of 4 KiB, allocated, depth 1, ${place}`, make: on('write', 1, 2) },
    {
      name: `qcow2 writes of 4 KiB, allocating, depth 1, ${place}`,
      make: () => requests({ kind: 'write', path: fresh, depth: 1, step: 4096, target: 1, prepare: makeFresh }),
    },
    {
      name: `qcow2 writes of 4 KiB, each in a new cluster, depth 1, ${place}`,
      make: () =>
        requests({ kind: 'write', path: fresh, depth: 1, step: 65536, count: 16_000, target: 1, prepare: makeFresh }),
    },
  ];
}

/** A chain of ten, each of 10 GiB with a cluster of its own. */
function makeChain(folder) {
  const at = (index) => join(folder, `chain-${index}.qcow2`);
  for (let index = 0; index < 10 && !existsSync(at(index)); index++) {
    const below = index === 0 ? [] : ['-b', at(index - 1), '-F', 'qcow2'];
    outputOf(['qemu-img', 'create', '-q', '-f', 'qcow2', ...below, at(index), '10G']);
    outputOf(['qemu-io', '-f', 'qcow2', '-c', `write ${index}M 64k`, at(index)]);
  }
  writeFileSync(`${at(9)}.raw`, new Uint8Array(512));
  return at(9);
}

function chainCase(folder) {
  return {
    name: 'qcow2 chain of 10 opened, in process',
    make() {
      const path = makeChain(folder);
      const ours = () => Number(outputOf([process.execPath, child('chain-child.mjs'), path]));
      return { unit: 'ms', targetDifference: 30, ours, peer: () => 0 };
    },
  };
}

/** `convert`: makes a case of two formats and images by format. */
export function qcow2Cases(places, sizes, convert) {
  return [
    ...places.flatMap(([folder, place]) =>
      sizes.flatMap((megabytes) =>
        copyCases(folder, megabytes, (from, to, images) => convert(folder, place, megabytes, { from, to, images })),
      ),
    ),
    ...places.flatMap(([folder, place]) => requestCases(folder, place)),
    chainCase(places[0][0]),
  ];
}
