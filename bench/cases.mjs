/** What is measured. Each case has our side, the peer's, and how they should compare. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compressCases } from './compress-cases.mjs';
import { filterCases } from './filter-cases.mjs';
import { convertByPeer, makeFull, makeHalfSparse, makeHugeQcow2, makeHugeVdi } from './images.mjs';
import { fileSystemOf } from './machine.mjs';
import { outputOf, peakMemory, timeProgram } from './measure.mjs';
import { nbdCases } from './nbd-cases.mjs';
import { qcow2Cases } from './qcow2-cases.mjs';

const ours = (...args) => [process.execPath, fileURLToPath(new URL('../bin/diskwright-img', import.meta.url)), ...args];
const own = (...args) => [process.execPath, fileURLToPath(new URL('../bin/diskwright', import.meta.url)), ...args];
const CHILD = fileURLToPath(new URL('requests-child.mjs', import.meta.url));

/**
 * Programs by wall time from start to end, at most `target` times the peer's; several of them count together. What writes files
 * is run twice, and the second time counts: in a virtual machine whose host takes free memory back, a page that was free for
 * long is fetched anew at its first use, at ten times the cost. The first run leaves such as are at hand.
 */
function programs({ our, peers, outputs = [], target }) {
  const clean = () => {
    for (const path of outputs) rmSync(path, { force: true });
  };
  const timed = (commands) => () => {
    clean();
    const run = () => commands.reduce((sum, command) => sum + timeProgram(command), 0);
    if (outputs.length > 0) {
      run();
      clean();
    }
    return run();
  };
  return {
    unit: 'ms',
    target,
    ours: timed([our]),
    peer: timed(peers),
    memory() {
      clean();
      return peakMemory(our);
    },
    clean,
  };
}

/** What copies of a half-sparse disk are measured on; made when first asked for. */
function halfSparse(folder, megabytes) {
  const raw = () => makeHalfSparse(join(folder, 'half.raw'), megabytes);
  return {
    raw,
    vdi: () => convertByPeer(raw(), 'raw', join(folder, 'half.vdi'), 'vdi'),
    drop() {
      for (const name of ['half.raw', 'half.vdi']) rmSync(join(folder, name), { force: true });
    },
  };
}

/** A copy from one format to another; `images` makes the sources by format. */
function convertCase(folder, fileSystem, megabytes, { from, to, images }) {
  return {
    name: `convert ${from} to ${to}, ${megabytes / 1024} GiB, ${fileSystem}`,
    make() {
      const out = join(folder, 'out');
      const args = ['convert', '-f', from, '-O', to, images[from](), out];
      return programs({ our: ours(...args), peers: [['qemu-img', ...args]], outputs: [out], target: 0.8 });
    },
  };
}

function copyCases(folder, fileSystem, megabytes) {
  const place = `${megabytes / 1024} GiB, ${fileSystem}`;
  const images = halfSparse(folder, megabytes);
  const out = join(folder, 'out');
  const convert = (from, to) => convertCase(folder, fileSystem, megabytes, { from, to, images });
  return [
    convert('raw', 'vdi'),
    convert('vdi', 'raw'),
    convert('vdi', 'vdi'),
    {
      name: `compare raw with vdi, ${place}`,
      make() {
        const args = ['compare', '-f', 'raw', '-F', 'vdi', images.raw(), images.vdi()];
        return programs({ our: ours(...args), peers: [['qemu-img', ...args]], target: 0.8 });
      },
    },
    {
      name: `checksum of vdi, ${place}`,
      make() {
        const vdi = images.vdi();
        const peers = [
          ['qemu-img', 'convert', '-f', 'vdi', '-O', 'raw', vdi, out],
          ['sha256sum', out],
        ];
        return programs({ our: own('checksum', '-f', 'vdi', vdi), peers, outputs: [out], target: 0.8 });
      },
      after: images.drop,
    },
  ];
}

/** Both programs with the same arguments, at most `target` times the peer's time. */
function sameArguments(target) {
  return (args, out) => programs({ our: ours(...args), peers: [['qemu-img', ...args]], outputs: [out], target });
}

function metadataCases(folder) {
  const huge = () => makeHugeVdi(join(folder, 'huge.vdi'));
  const node = [process.execPath, '-e', '0'];
  const map = (name, ...form) => ({
    name,
    make() {
      const args = ['map', ...form, '-f', 'vdi', huge()];
      return programs({ our: ours(...args), peers: [['qemu-img', ...args]], target: 0.8 });
    },
  });
  const beside = (name, command) => ({
    name,
    make: () => ({ ...programs({ our: [...command, '-f', 'vdi', huge()], peers: [node] }), targetDifference: 40 }),
  });
  return [
    map('map of 1 TiB, JSON', '--output=json'),
    map('map of 1 TiB, table'),
    beside('check of 1 TiB, beside `node -e 0`', own('check')),
    beside('info of 1 TiB, beside `node -e 0`', ours('info')),
    {
      name: 'check of 1 TiB, qcow2 with all clusters mapped',
      make() {
        const args = ['check', '-f', 'qcow2', makeHugeQcow2(join(folder, 'huge.qcow2'))];
        return programs({ our: ours(...args), peers: [['qemu-img', ...args]], target: 1 });
      },
    },
  ];
}

/** Requests per second in one process, at least `target` times the peer's. */
function requests({ kind, path, count, depth, target, prepare = () => {} }) {
  const write = kind === 'write' ? ['-w'] : [];
  const args = ['bench', '-f', 'vdi', '-t', 'writeback', '-c', count, '-d', depth, ...write, path];
  return {
    unit: 'req/s',
    target,
    ours() {
      prepare();
      return Number(outputOf([process.execPath, CHILD, kind, path, count, depth]));
    },
    peer() {
      prepare();
      const seconds = /completed in ([\d.]+) seconds/.exec(outputOf(['qemu-img', ...args.map(String)]))?.[1];
      return count / Number(seconds);
    },
  };
}

function requestCases(folder, place) {
  const full = () => makeFull(join(folder, 'full.vdi'), 512, 'vdi');
  const fresh = join(folder, 'fresh.vdi');
  const makeFresh = () => {
    rmSync(fresh, { force: true });
    outputOf(['qemu-img', 'create', '-q', '-f', 'vdi', fresh, '1G']);
  };
  const count = 75_000;
  const on = (kind, depth, target) => () => requests({ kind, path: full(), count, depth, target });
  return [
    { name: `read 4 KiB, depth 1, ${place}`, make: on('read', 1, 4) },
    { name: `read 4 KiB, depth 32, ${place}`, make: on('read', 32, 1.3) },
    { name: `write 4 KiB, allocated, depth 1, ${place}`, make: on('write', 1, 2) },
    {
      name: `write 4 KiB, allocating, depth 1, ${place}`,
      make: () => requests({ kind: 'write', path: fresh, count, depth: 1, target: 1.5, prepare: makeFresh }),
    },
  ];
}

/** Images that are compressed: encoders take a hundred times as long as copies do. */
const PACKED_MEGABYTES = 256;

/**
 * All cases: a name, what makes images and returns the two sides, and what is to be done afterwards. `folders` are on the
 * storage to measure, `sizes` are those of images that are copied, in MiB.
 */
export function allCases(folders, sizes) {
  const places = folders.map((folder) => [folder, fileSystemOf(folder)]);
  return [
    ...places.flatMap(([folder, place]) => sizes.flatMap((megabytes) => copyCases(folder, place, megabytes))),
    ...qcow2Cases(places, sizes, convertCase),
    ...places.flatMap(([folder, place]) => compressCases(folder, place, PACKED_MEGABYTES, sameArguments(0.9))),
    ...metadataCases(folders[0]),
    ...places.flatMap(([folder, place]) => requestCases(folder, place)),
    ...filterCases(...places[0]),
    ...places.flatMap(([folder, place]) => nbdCases(folder, place)),
  ];
}
