/** NBD servers side by side: ours, qemu-nbd, nbdkit's file plugin; clients: fio's nbd engine and nbdcopy. */
import { spawn } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { makeFull, makeHalfSparse } from './images.mjs';
import { outputOf, timeProgram } from './measure.mjs';

const NBD = fileURLToPath(new URL('../bin/diskwright-nbd', import.meta.url));
const SECONDS = 2;

/** Servers by name: the command for an image at a socket. */
const SERVERS = {
  ours: (socket, image, format) => [process.execPath, NBD, '-t', '-e', '0', '-k', socket, '-f', format, image],
  'qemu-nbd': (socket, image, format) => ['qemu-nbd', '-t', '-e', '0', '-k', socket, '-f', format, image],
  nbdkit: (socket, image) => ['nbdkit', '-f', '-U', socket, 'file', image],
};

/** Starts a server, and ends it when `work` is done with its URI. */
async function withServer(name, folder, image, format, work) {
  const socket = join(folder, 'bench.sock');
  rmSync(socket, { force: true });
  const [program, ...args] = SERVERS[name](socket, image, format);
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = new Promise((resolve) => child.once('close', resolve));
  try {
    while (!existsSync(socket)) await delay(10);
    return work(`nbd+unix:///?socket=${socket}`);
  } finally {
    child.kill();
    await ended;
  }
}

/** Requests per second of fio; with large blocks that says the same as MiB/s. */
function fio(uri, { kind, block, depth }) {
  const options = [`--rw=${kind}`, `--bs=${block}`, `--iodepth=${depth}`, '--time_based', `--runtime=${SECONDS}`];
  const text = outputOf([
    'fio',
    '--name=x',
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--size=512M',
    ...options,
    '--output-format=json',
  ]);
  const [job] = JSON.parse(text.slice(text.indexOf('{'))).jobs;
  return job.read.iops + job.write.iops;
}

function requests(folder, peer, image, { format = 'raw', peerFormat = format, peerImage = image, target, ...kind }) {
  const side = (name, path, itsFormat) => () => withServer(name, folder, path(), itsFormat, (uri) => fio(uri, kind));
  return { unit: 'req/s', target, ours: side('ours', image, format), peer: side(peer, peerImage, peerFormat) };
}

/** All cases: as in cases.mjs. */
export function nbdCases(folder, place) {
  const raw = () => makeHalfSparse(join(folder, 'nbd.raw'), 512, 1024);
  const half = () => makeHalfSparse(join(folder, 'nbd-half.raw'), 4096);
  const against = (peer, name, settings) => ({
    name: `nbd ${name}, beside ${peer}, ${place}`,
    make: () => requests(folder, peer, raw, settings),
  });
  const read = (depth) => ({ kind: 'randread', block: '4k', depth });
  const write = (depth) => ({ kind: 'randwrite', block: '4k', depth });
  const sequential = { kind: 'read', block: '256k', depth: 32 };
  const copy = (name) => () => withServer(name, folder, half(), 'raw', (uri) => timeProgram(['nbdcopy', uri, 'null:']));
  return [
    ...[1, 32].flatMap((depth) => [
      against('qemu-nbd', `random reads of 4 KiB, depth ${depth}`, { ...read(depth), target: 2 }),
      against('nbdkit', `random reads of 4 KiB, depth ${depth}`, { ...read(depth), target: 1.2 }),
      against('qemu-nbd', `random writes of 4 KiB, depth ${depth}`, { ...write(depth), target: 1.5 }),
    ]),
    against('qemu-nbd', 'reads of 256 KiB, depth 32', { ...sequential, target: 1.2 }),
    against('nbdkit', 'reads of 256 KiB, depth 32', { ...sequential, target: 1.2 }),
    ...['vdi', 'qcow2'].map((format) => ({
      name: `nbd reads of 4 KiB from ${format}, beside a raw file by ours, ${place}`,
      make: () =>
        requests(folder, 'ours', () => makeFull(join(folder, `nbd.${format}`), 512, format), {
          ...read(32),
          format,
          peerImage: raw,
          peerFormat: 'raw',
          target: 0.77,
        }),
    })),
    {
      name: `nbd nbdcopy of 4 GiB, half of it holes, beside qemu-nbd, ${place}`,
      make: () => ({ unit: 'ms', target: 0.9, ours: copy('ours'), peer: copy('qemu-nbd') }),
    },
  ];
}
