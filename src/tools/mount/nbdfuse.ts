/** nbdfuse, which shows an NBD export as a file: started, waited for, and stopped by unmounting. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { Failure } from '../failure.ts';

const PROGRAM = 'nbdfuse';
const UNMOUNT = 'fusermount3';
/** The end of what it says is kept, characters. */
const COMPLAINT_MAX = 2000;

export interface FuseOptions {
  /** The folder to mount on. */
  readonly folder: string;
  /** The name of the file in it. */
  readonly name: string;
  readonly uri: string;
  readonly readOnly: boolean;
  /** For `-o`. */
  readonly options: readonly string[];
  /** A file in a folder of our own, which appears when the file can be used. */
  readonly pidFile: string;
}

export interface Mounted {
  /** Resolves when the file can be used; throws Failure when it comes to nothing. */
  readonly ready: Promise<void>;
  /** Resolves when it is unmounted, by us or by anyone; throws Failure for a failure after it was ready. */
  readonly over: Promise<void>;
  /** Unmounts; while the file is in use, it goes as soon as it no longer is. `busy` is told so. */
  unmount(busy: () => void): Promise<void>;
}

/** Throws Failure where the system lacks what is needed. */
export function requireFuse(folder: string): void {
  if (spawnSync(PROGRAM, ['--version'], { stdio: 'ignore' }).error !== undefined) {
    throw new Failure(`Cannot mount on '${folder}': ${PROGRAM} is not installed`, {
      hint: 'It comes with libnbd (Debian: libnbd-bin).',
    });
  }
  if (process.platform === 'linux' && !existsSync('/dev/fuse')) {
    throw new Failure(`Cannot mount on '${folder}': this system has no FUSE, there is no /dev/fuse`);
  }
  const found = statSync(folder, { throwIfNoEntry: false });
  if (found === undefined) throw new Failure(`Cannot mount on '${folder}': No such file or directory`);
  if (!found.isDirectory()) throw new Failure(`Cannot mount on '${folder}': Not a directory`);
}

export function startFuse({ folder, name, uri, readOnly, options, pidFile }: FuseOptions): Mounted {
  const flags = [...(readOnly ? ['-r'] : []), ...options.flatMap((each) => ['-o', each]), '-P', pidFile];
  // In a session of its own: an interrupt from the terminal is ours to answer, by unmounting.
  const stdio: ['ignore', 'ignore', 'pipe'] = ['ignore', 'ignore', 'pipe'];
  const child = spawn(PROGRAM, [...flags, `${folder}/${name}`, uri], { stdio, detached: true });
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-COMPLAINT_MAX);
  });
  const exited = once(child, 'close').then(([status]) => status as number | null);
  const over = exited.then((status) => {
    if (status !== 0) throw new Failure(`${PROGRAM} failed: ${complaint.trim() || `status ${status}`}`);
  });
  over.catch(() => {});
  return {
    ready: Promise.race([
      appeared(pidFile),
      over.then(() => {
        throw new Failure(`${PROGRAM} ended before '${folder}' was mounted`);
      }),
    ]),
    over,
    async unmount(busy) {
      if (await unmounted('-u', folder)) return;
      busy();
      // Detached now, gone when its last user is.
      await unmounted('-u', '-z', folder);
    },
  };
}

/** Unmounting writes back what is cached, to our own server, so that nothing here may wait for it at a standstill. */
async function unmounted(...args: string[]): Promise<boolean> {
  const [status] = await once(spawn(UNMOUNT, args, { stdio: 'ignore' }), 'exit');
  return status === 0;
}

function appeared(path: string): Promise<void> {
  return new Promise((resolve) => {
    const watcher = watch(dirname(path), (_event, name) => {
      if (name === basename(path) || existsSync(path)) done();
    });
    const done = () => {
      watcher.close();
      resolve();
    };
    watcher.unref();
    if (existsSync(path)) done();
  });
}
