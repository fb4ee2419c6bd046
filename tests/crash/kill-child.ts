/** A process that converts or compacts, and kills itself in the middle of its n-th change to a file. */
import type { Host, HostFile } from '../../src/core/host.ts';
import { convert } from '../../src/jobs/convert.ts';
import { nodeHost } from '../../src/node/host.ts';
import { graphOn } from '../support/drivers.ts';

export interface KillTask {
  readonly task: 'convert' | 'compact';
  readonly source: string;
  readonly target: string;
  readonly format: string;
  /** The change that is not finished, counted from 1. */
  readonly dieAt: number;
}

const task = JSON.parse(process.argv[2] ?? '{}') as KillTask;
let changes = 0;

function die(): never {
  process.kill(process.pid, 'SIGKILL');
  throw new Error('killed');
}

/** Half of the last write gets through; of other changes nothing. */
async function counted<T>(work: () => Promise<T>, half: () => Promise<unknown> = async () => {}): Promise<T> {
  changes++;
  if (changes < task.dieAt) return await work();
  await half();
  die();
}

function deadlyFile(file: HostFile): HostFile {
  const changed: Partial<HostFile> = {
    write: (offset, source) =>
      counted(
        () => file.write(offset, source),
        () => file.write(offset, source.subarray(0, Math.floor(source.length / 2))),
      ),
    tryWriteNow: () => false,
    truncate: (length) => counted(() => file.truncate(length)),
    punchHole: (offset, length) => counted(() => file.punchHole(offset, length)),
    zeroRange: (offset, length) => counted(() => file.zeroRange(offset, length)),
    copyFrom: (source, sourceOffset, offset, length) =>
      counted(() => file.copyFrom(originals.get(source) ?? source, sourceOffset, offset, length)),
  };
  const deadly = new Proxy(file, {
    get(target, name) {
      const value = Reflect.get(changed, name) ?? Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  originals.set(deadly, file);
  return deadly;
}
const originals = new WeakMap<HostFile, HostFile>();

function deadlyHost(host: Host): Host {
  const { files } = host;
  return {
    ...host,
    files: {
      open: async (path, mode) => deadlyFile(await files.open(path, mode)),
      stat: (path) => files.stat(path),
      resolve: (path) => files.resolve(path),
      remove: (path) => files.remove(path),
      rename: (from, to) => counted(() => files.rename(from, to)),
      list: (path) => files.list(path),
    },
  };
}

async function run(): Promise<void> {
  const graph = graphOn(deadlyHost(nodeHost()));
  if (task.task === 'compact') {
    await using disk = await graph.open(task.target, { format: task.format, writable: true });
    await disk.compact();
    return;
  }
  await using disk = await graph.open(task.source, { format: 'raw' });
  await convert({ graph, sources: [disk], target: { filename: task.target, format: task.format } });
}

run().catch((error: unknown) => {
  process.stderr.write(`${error}\n`);
  process.exitCode = 1;
});
