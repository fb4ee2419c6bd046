/** Programs that end while threads of a context hang, from bundles as the library is shipped in. */
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const here = path.dirname(new URL(import.meta.url).pathname);
const root = path.join(here, '../..');
const folder = fs.mkdtempSync(path.join(tmpdir(), 'diskwright-'));
const pipe = path.join(folder, 'pipe');

const PROGRAM = `
import fs from 'node:fs';
import { endProcess, leaveEndToNode } from './exit.ts';
import { nodeHost } from './host.ts';
import { loadKoffi } from './koffi.ts';

const [, , what, pipe] = process.argv;
const koffi = what === 'kill' ? { loadKoffi() { throw new Error('not installed'); } } : {};
const host = nodeHost(koffi);

async function hang() {
  const context = host.createContext('disk1');
  const file = await host.files.open(pipe, { write: true, context });
  for (let reads = 0; reads < 5; reads++) void file.read(0, new Uint8Array(1));
  // Until they surely hang.
  const other = host.createContext('disk2');
  for (let turns = 0; turns < 200; turns++) await host.files.stat('.', other);
  process.on('exit', (code) => process.stdout.write('listener ' + code));
}

/** With a read in Node's own pool that does not come back, for whose thread Node would wait. */
function endAtOnce() {
  loadKoffi();
  fs.read(fs.openSync(pipe, 'r+'), Buffer.alloc(1), () => {});
  setImmediate(() => {
    process.on('exit', (code) => {
      process.stdout.write('listener ' + code);
      process.exitCode = 8;
    });
    endProcess(7);
  });
}

async function main() {
  if (what === 'at once') return endAtOnce();
  if (what === 'by node' || what === 'plain') {
    loadKoffi();
    if (what === 'by node') leaveEndToNode();
    return endProcess(7);
  }
  if (what === 'alive') {
    await host.files.stat('.', host.createContext('disk1'));
    process.stdout.write('done');
    return;
  }
  await hang();
  if (what === 'throw') throw new Error('a mistake');
  process.exit(7);
}
void main();
`;

beforeAll(async () => {
  execFileSync('mkfifo', [pipe]);
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'));
  const shared = {
    stdin: { contents: PROGRAM, resolveDir: here },
    bundle: true,
    platform: 'node',
    target: 'node20.19',
    packages: 'external',
    logLevel: 'error',
  } as const;
  await build({ ...shared, format: 'esm', outfile: path.join(folder, 'program.mjs') });
  await build({
    ...shared,
    format: 'cjs',
    outfile: path.join(folder, 'program.cjs'),
    minifyWhitespace: true,
    minifySyntax: true,
    define: { 'import.meta.url': 'bundleUrl' },
    banner: { js: 'const bundleUrl=require("node:url").pathToFileURL(__filename).href;' },
  });
});
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

function run(kind: string, what: string, env: NodeJS.ProcessEnv = {}) {
  const program = path.join(folder, `program.${kind}`);
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [program, what, pipe], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 60_000,
    killSignal: 'SIGTERM',
  });
  return { status, signal, stdout, stderr };
}

describe.skipIf(process.platform !== 'linux').each(['mjs', 'cjs'])(
  'a program in a .%s file (skipped without named pipes)',
  (kind) => {
    test('ends with its own status while five reads hang, and after its listeners were called', () => {
      expect(run(kind, 'exit')).toEqual({ status: 7, signal: null, stdout: 'listener 7', stderr: '' });
    });

    test('ends on an error while reads hang', () => {
      const { stderr, ...rest } = run(kind, 'throw');
      expect(rest).toEqual({ status: 1, signal: null, stdout: 'listener 1' });
      expect(stderr).toContain('Error: a mistake');
    });

    test('is not ended while it waits for a context, and not kept from ending by its threads', () => {
      expect(run(kind, 'alive')).toEqual({ status: 0, signal: null, stdout: 'done', stderr: '' });
    });

    test('ends at once when its own end is asked for, with the status that its listeners leave', () => {
      expect(run(kind, 'at once')).toEqual({ status: 8, signal: null, stdout: 'listener 7', stderr: '' });
    });

    test('is ended by Node where that is asked for, or a report on it', () => {
      expect(run(kind, 'by node').status).toBe(7);
      const reports = path.join(folder, `reports-${kind}`);
      expect(run(kind, 'plain', { NODE_V8_COVERAGE: reports }).status).toBe(7);
      expect(fs.readdirSync(reports)).toHaveLength(1);
    });

    test('is killed where no system call can end it', () => {
      expect(run(kind, 'kill')).toEqual({ status: null, signal: 'SIGKILL', stdout: 'listener 7', stderr: '' });
    });
  },
);
