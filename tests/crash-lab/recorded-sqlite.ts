/** SQLite on a recorded disk: its database and its journal are two windows of one disk, mounted as files by way of NBD. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, existsSync, truncateSync, writeFileSync } from 'node:fs';
import { watch } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import { mark } from '../../src/filters/log/node.ts';
import { defaultGraph } from '../../src/node/index.ts';
import { serve } from '../../src/node/nbd/serve.ts';

/** Bytes of each window. */
export const WINDOW = 256 * 1024;
const ROWS = 40;

export function whyNoSqlite(): string | undefined {
  for (const [program, debian] of [
    ['sqlite3', 'sqlite3'],
    ['nbdfuse', 'libnbd-bin'],
    ['nbdkit', 'nbdkit'],
    ['fusermount3', 'fuse3'],
  ] as const) {
    if (spawnSync(program, ['--version']).status !== 0) return `${program} is not installed (Debian: ${debian})`;
  }
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch {
    return '/dev/fuse may not be used';
  }
  return undefined;
}

/** One window of the served disk, mounted over a file. */
class MountedWindow {
  readonly #path: string;
  readonly #process: ChildProcess;

  private constructor(path: string, process: ChildProcess) {
    this.#path = path;
    this.#process = process;
  }

  static async mount(folder: string, path: string, uri: string, offset: number): Promise<MountedWindow> {
    const pid = join(folder, `${basename(path)}.pid`);
    writeFileSync(path, '');
    const nbdkit = ['nbdkit', '-s', '--exit-with-parent', '--filter=blocksize', '--filter=offset', 'nbd'];
    // SQLite writes what it likes; the log has sectors.
    const window = [`uri=${uri}`, 'minblock=512', `offset=${offset}`, `range=${WINDOW}`];
    const process = spawn('nbdfuse', ['-P', pid, path, '--command', ...nbdkit, ...window], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let errors = '';
    process.stderr.on('data', (text) => {
      errors += text;
    });
    const stop = new AbortController();
    process.once('exit', () => stop.abort(new Error(`nbdfuse ended: ${errors}`)));
    const changes = watch(folder, { signal: stop.signal });
    // The process id is written when the file is there.
    if (!existsSync(pid)) for await (const { filename } of changes) if (filename === basename(pid)) break;
    return new MountedWindow(path, process);
  }

  async unmount(): Promise<void> {
    if (this.#process.exitCode !== null) return;
    const ended = once(this.#process, 'exit');
    spawn('fusermount3', ['-u', this.#path]);
    await ended;
  }
}

/** Makes `base` (both windows), and a log of `transactions` transactions on a copy of it; each has a mark when it is confirmed. */
export async function recordSqlite(
  folder: string,
  files: { readonly base: string; readonly disk: string; readonly log: string },
  { synchronous, transactions }: { readonly synchronous: 'FULL' | 'OFF'; readonly transactions: number },
): Promise<void> {
  const create = `PRAGMA page_size = 1024; CREATE TABLE accounts (id INTEGER PRIMARY KEY, amount INTEGER, turn INTEGER, pad TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS})
    INSERT INTO accounts SELECT i, 0, 0, printf('%0400d', i) FROM n;`;
  const made = spawnSync('sqlite3', [files.base, create], { encoding: 'utf8' });
  if (made.status !== 0) throw new Error(`sqlite3: ${made.stderr}`);
  truncateSync(files.base, 2 * WINDOW);
  spawnSync('cp', [files.base, files.disk]);
  writeFileSync(files.log, '');
  const disk = await defaultGraph().open(
    { driver: 'log', file: { driver: 'file', filename: files.disk }, log: { driver: 'file', filename: files.log } },
    { writable: true },
  );
  const served = await serve(disk, { socket: join(folder, 'nbd.sock') });
  const mounts: MountedWindow[] = [];
  try {
    const database = join(folder, 'db');
    mounts.push(await MountedWindow.mount(folder, database, served.uri, 0));
    mounts.push(await MountedWindow.mount(folder, `${database}-journal`, served.uri, WINDOW));
    await runTransactions(database, synchronous, transactions, (name) => mark(disk, name));
  } finally {
    for (const mount of mounts) await mount.unmount();
    await served.close();
    await disk.close();
  }
}

/** Each moves amounts between all accounts, whose sum stays 0, and is waited for. */
async function runTransactions(
  database: string,
  synchronous: string,
  transactions: number,
  confirmed: (name: string) => Promise<void>,
): Promise<void> {
  const sqlite = spawn('sqlite3', ['-bail', database], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(sqlite, 'exit');
  const lines = createInterface(sqlite.stdout)[Symbol.asyncIterator]();
  try {
    sqlite.stdin.write(`PRAGMA journal_mode = PERSIST; PRAGMA synchronous = ${synchronous};\n`);
    await lines.next();
    for (let turn = 1; turn <= transactions; turn++) {
      const moved = `amount + (CASE WHEN id % 2 THEN ${turn} ELSE -${turn} END)`;
      sqlite.stdin.write(
        `BEGIN; UPDATE accounts SET turn = ${turn}, amount = ${moved}; COMMIT; SELECT 'done ${turn}';\n`,
      );
      const { value } = await lines.next();
      if (value !== `done ${turn}`) throw new Error(`sqlite3 said ${value}`);
      await confirmed(`turn ${turn}`);
    }
  } finally {
    // It has the files open, which then cannot be unmounted.
    sqlite.stdin.end();
    await ended;
  }
}

/** Opens what is left, as SQLite does after a power cut. Throws unless it is sound and has what was confirmed. */
export async function checkSqlite(database: string, confirmed: number): Promise<void> {
  const query = 'PRAGMA integrity_check; SELECT sum(amount), count(*), min(turn), max(turn) FROM accounts;';
  const sqlite = spawn('sqlite3', ['-bail', database, query]);
  let text = '';
  for (const stream of [sqlite.stdout, sqlite.stderr]) {
    stream.on('data', (bytes) => {
      text += bytes;
    });
  }
  await once(sqlite, 'close');
  const found = /^ok\n0\|(\d+)\|(\d+)\|(\d+)\n$/.exec(text);
  if (found === null) throw new Error(`the database is damaged: ${text.trim().split('\n').slice(0, 2).join('; ')}`);
  const [, rows, oldest, newest] = found.map(Number);
  if (rows !== ROWS || oldest !== newest) throw new Error(`half a transaction is there: turns ${oldest} to ${newest}`);
  if ((newest ?? 0) < confirmed) throw new Error(`turn ${confirmed} was confirmed, the database has ${newest}`);
}
