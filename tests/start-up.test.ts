/** What a command does before its work: it loads no more of Node than it uses, and little is compiled anew. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build as esbuild } from 'esbuild';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { build } from '../scripts/build.mjs';
import { bundleOf, lateParts } from '../scripts/commands-bundle.mjs';
import { root } from './tidy/source-files.ts';

/** Each of these takes a millisecond or more. */
const SLOW = ['crypto', 'fs/promises', 'net', 'perf_hooks', 'stream', 'tty', 'worker_threads', 'zlib'];

const { Bundle } = createRequire(import.meta.url)('../bin/launch.js');

const folder = mkdtempSync(join(tmpdir(), 'diskwright-start-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const PRELOADED = `
const before = new Set(process.moduleLoadList);
process.on('exit', () => {
  const loaded = process.moduleLoadList.filter((name) => !before.has(name));
  process._rawDebug(loaded.map((name) => name.replace('NativeModule ', '')).join('\\n'));
});
`;

beforeAll(async () => {
  await build();
  writeFileSync(join(folder, 'list.cjs'), PRELOADED);
  writeFileSync(join(folder, 'raw'), Buffer.alloc(1 << 20, 1));
  for (const format of ['vdi', 'qcow2'])
    node(join(root, 'bin/diskwright-img'), 'create', '-f', format, `a.${format}`, '1M');
});

function node(...args: string[]) {
  return spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' });
}

describe('a command', () => {
  test.each(['convert -f raw -O vdi raw a.vdi', 'check a.vdi', 'compare a.vdi raw'])(
    'loads nothing of Node that takes long: %s',
    (words) => {
      const run = node('-r', './list.cjs', join(root, 'bin/diskwright-img'), ...words.split(' '));
      expect(run.status).toBe(0);
      const loaded = run.stderr.trim().split('\n');
      expect(loaded).toContain('vm');
      expect(loaded.filter((name) => SLOW.includes(name))).toEqual([]);
    },
  );

  test.each(['info a.vdi', 'info a.qcow2', 'convert -O qcow2 a.vdi b.qcow2'])(
    'starts from what V8 compiled: %s',
    (words) => {
      const program = `
      process.argv.splice(1, 0, 'diskwright-img');
      const { scripts } = require(${JSON.stringify(join(root, 'bin/launch.js'))}).launch('diskwright-img');
      process.on('exit', () => {
        for (const [part, { cachedDataRejected }] of scripts) process._rawDebug(part, cachedDataRejected);
      });
    `;
      const parts = words.includes('qcow2') ? ' false\nqcow2 false\n' : ' false\n';
      expect(node('-e', program, ...words.split(' ')).stderr).toBe(parts);
    },
  );
});

/** What esbuild tells of chunks: their texts and what they import of each other. */
function resultOf(
  chunks: readonly { readonly path: string; readonly text: string; readonly imports?: readonly string[] }[],
) {
  const outputs = chunks.map(({ path, imports = [] }) => {
    const entry = imports.length > 0 ? { entryPoint: path } : {};
    return [path, { ...entry, imports: imports.map((name) => ({ path: name, external: false })) }];
  });
  return { outputFiles: chunks, metafile: { outputs: Object.fromEntries(outputs) } };
}

const asItIs = async (text: string) => text;

/** Notes the names that scripts log while it runs. */
function logged() {
  const names: string[] = [];
  vi.stubGlobal('log', (name: string) => names.push(name));
  return names;
}

afterEach(() => vi.unstubAllGlobals());

describe('chunks as functions', () => {
  const CHUNKS = [
    {
      path: 'main.js',
      imports: ['shared.js', 'effect.js', 'later.js'],
      text: [
        'import {\n  first,\n  second as other\n} from "./shared.js";',
        'import "./effect.js";',
        'import path, { sep } from "node:path";',
        'import * as os from "node:os";',
        'var later = () => import("./later.js");',
        'var result = [first, other(), path.sep === sep, typeof os.tmpdir];',
        'export {\n  later,\n  result as all\n};',
      ].join('\n'),
    },
    {
      path: 'shared.js',
      text: 'log("shared");\nvar a = 1;\nvar second = () => 2;\nexport {\n  a as first,\n  second\n};',
    },
    { path: 'effect.js', text: 'import "./shared.js";\nlog("effect");' },
    { path: 'later.js', text: 'import { first } from "./shared.js";\nlog("later");\nexport {\n  first\n};' },
  ];

  test('import and export what the modules did, each run once, when it is wanted', async () => {
    const ran = logged();
    const bundle = new Bundle(Buffer.from(await bundleOf(resultOf(CHUNKS), asItIs)), []);
    const main = bundle.start()('./main.js');
    expect(main.all).toEqual([1, 2, true, 'function']);
    expect(ran).toEqual(['shared', 'effect']);
    expect(await main.later()).toEqual({ first: 1 });
    await main.later();
    expect(ran).toEqual(['shared', 'effect', 'later']);
  });

  test('statements that are not known are refused', async () => {
    const odd = { path: 'odd.js', text: 'export default 1;', imports: ['odd.js'] };
    await expect(bundleOf(resultOf([odd]), asItIs)).rejects.toThrow(
      'odd.js: a statement of modules that is not known here',
    );
  });
});

describe('late parts', () => {
  /** Of files in the folder. */
  async function bundled(files: Record<string, string>, late: Record<string, string[]>) {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    const { entryPoints, plugin } = lateParts(folder, late);
    const result = await esbuild({
      absWorkingDir: folder,
      entryPoints: { main: 'main.ts', ...entryPoints },
      plugins: [plugin],
      bundle: true,
      splitting: true,
      write: false,
      metafile: true,
      format: 'esm',
      platform: 'node',
      outdir: 'out',
      logLevel: 'silent',
    });
    return bundleOf(result, asItIs);
  }

  test('are scripts of their own, loaded when a function of theirs is called, and share modules with the rest', async () => {
    const ran = logged();
    const text = await bundled(
      {
        'main.ts':
          "import { add as plus } from './late.ts'; import { list } from './shared.ts'; export { plus, list };",
        'late.ts':
          "import { list } from './shared.ts'; import './own.ts'; export function add(n) { list.push(n); return list.length; }",
        'own.ts': "log('own');",
        'shared.ts': "log('shared'); export const list = [];",
      },
      { adding: ['late.ts'] },
    );
    const bundle = new Bundle(Buffer.from(text), []);
    const { plus, list } = bundle.start()('./main.js');
    expect(ran).toEqual(['shared']);
    expect([...bundle.scripts.keys()]).toEqual(['']);
    expect([plus(3), plus(4)]).toEqual([1, 2]);
    expect(list).toEqual([3, 4]);
    expect(ran).toEqual(['shared', 'own']);
    expect([...bundle.scripts.keys()]).toEqual(['', 'adding']);
  });

  test('have nothing but functions', async () => {
    const files = { 'main.ts': "export * from './late.ts';", 'late.ts': 'export const ANSWER = 42;' };
    await expect(bundled(files, { answer: ['late.ts'] })).rejects.toThrow('late.ts cannot be late: not a function');
  });
});
