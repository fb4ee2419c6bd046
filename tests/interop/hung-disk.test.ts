/** BL-CTX-5 on a file system that does not answer: a FUSE mount whose server takes an hour for every read. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, existsSync, writeFileSync } from 'node:fs';
import { watch } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { setContext } from '../../src/core/context.ts';
import type { Disk } from '../../src/core/disk.ts';
import type { HostContext } from '../../src/core/host.ts';
import { nodeHost } from '../../src/node/host.ts';
import { graphOn } from '../support/drivers.ts';
import { inFolder } from './peer.ts';

const MIB = 1 << 20;
/** Threads of the pool that all of the process shares. */
const POOL = Number(process.env.UV_THREADPOOL_SIZE ?? 4);

function whyNot(): string | undefined {
  for (const program of ['nbdfuse', 'nbdkit', 'fusermount3']) {
    if (spawnSync(program, ['--version']).status !== 0) {
      return `${program} is not installed (Debian: libnbd-bin, nbdkit, fuse3)`;
    }
  }
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch {
    return '/dev/fuse may not be used';
  }
  return undefined;
}
const missing = whyNot();

/** A mounted file that answers to everything but reads, until it is killed: then they fail. */
class HungFile {
  readonly path: string;
  readonly #server: ChildProcess;

  private constructor(path: string, server: ChildProcess) {
    this.path = path;
    this.#server = server;
  }

  static async mount(folder: string): Promise<HungFile> {
    const [path, pid] = [join(folder, 'hung'), join(folder, 'pid')];
    writeFileSync(path, '');
    const nbdkit = ['nbdkit', '-s', '--exit-with-parent', '--filter=delay', 'memory', '16M', 'rdelay=3600'];
    const server = spawn('nbdfuse', ['-P', pid, path, '--command', ...nbdkit], { stdio: ['ignore', 'ignore', 'pipe'] });
    let errors = '';
    server.stderr.on('data', (text) => {
      errors += text;
    });
    const stop = new AbortController();
    server.once('exit', () => stop.abort(new Error(`nbdfuse ended: ${errors}`)));
    const changes = watch(folder, { signal: stop.signal });
    // The process id is written when the file is there.
    if (!existsSync(pid)) for await (const { filename } of changes) if (filename === 'pid') break;
    return new HungFile(path, server);
  }

  async kill(): Promise<void> {
    const ended = once(this.#server, 'exit');
    this.#server.kill('SIGKILL');
    await ended;
    // At once, though files are still open there.
    spawnSync('fusermount3', ['-u', '-z', this.path]);
  }
}

interface World {
  readonly hung: Disk;
  /** An ordinary disk, in the main context; and one in another context, which is never held up. */
  readonly other: Disk;
  readonly apart: Disk;
  /** What hangs may hang in. */
  readonly context: HostContext;
  /** Lets reads that hang fail. */
  release(): Promise<void>;
}

async function inWorld(open: { readonly inContext: boolean }, work: (world: World) => Promise<void>): Promise<void> {
  await inFolder(async (folder) => {
    const host = nodeHost();
    const [context, elsewhere] = [host.createContext('hung'), host.createContext('elsewhere')];
    const graph = graphOn(host);
    const plain = (filename: string) => ({ driver: 'raw', file: { driver: 'file', filename, aio: 'threads' } });
    const name = join(folder, 'other');
    writeFileSync(name, new Uint8Array(MIB).fill(7));
    const file = await HungFile.mount(folder);
    let released: Promise<void> | undefined;
    const release = () => {
      released ??= file.kill();
      return released;
    };
    try {
      await using other = await graph.open(plain(name));
      await using apart = await graph.open(plain(name), { context: elsewhere });
      const hung = await graph.open(plain(file.path), open.inContext ? { context } : {});
      try {
        await work({ hung, other, apart, context, release });
      } finally {
        await release();
        // There is no server any more that could be told.
        await hung.close().catch(() => {});
      }
    } finally {
      await release();
    }
    await context.close();
    await elsewhere.close();
  });
}

/** So many reads that hang, each of its own place; what came of them. */
function hang(disk: Disk, reads: number): { readonly ended: number; readonly all: Promise<string[]> } {
  let ended = 0;
  const outcomes = Array.from({ length: reads }, async (_, index) => {
    const outcome = await disk.read(index * MIB, 512).then(
      () => 'read',
      (error) => String(error.name),
    );
    ended++;
    return outcome;
  });
  return {
    get ended() {
      return ended;
    },
    all: Promise.all(outcomes),
  };
}

/** Enough round trips elsewhere for a read of the pool to be long over, if it has a thread. */
async function manyReads(disk: Disk): Promise<void> {
  for (let turn = 0; turn < 300; turn++) await disk.read(0, 512);
}

describe.skipIf(missing)(`a disk that hangs${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  test('in the main context leaves no threads to others', async () => {
    await inWorld({ inContext: false }, async ({ hung, other, apart, release }) => {
      const stuck = hang(hung, POOL);
      await manyReads(apart);
      let served = false;
      const starved = other.read(0, 512).then((bytes) => {
        served = true;
        return bytes;
      });
      await manyReads(apart);
      expect([stuck.ended, served]).toEqual([0, false]);
      await release();
      expect(await stuck.all).toEqual(Array(POOL).fill('BlockError'));
      expect(await starved).toEqual(new Uint8Array(512).fill(7));
    });
  });

  test.each([
    ['opened in a context of its own', true],
    ['moved to a context of its own', false],
  ])('%s holds up itself only', async (_, inContext) => {
    await inWorld({ inContext }, async ({ hung, other, apart, context, release }) => {
      if (!inContext) await setContext(hung.graph, hung.node, context);
      const stuck = hang(hung, POOL + 2);
      expect(await other.read(0, 512)).toEqual(new Uint8Array(512).fill(7));
      await manyReads(apart);
      await manyReads(other);
      expect(stuck.ended).toBe(0);
      await release();
      expect(await stuck.all).toEqual(Array(POOL + 2).fill('BlockError'));
    });
  });
});
