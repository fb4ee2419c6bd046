/** What a command does before its work: it loads no more of Node than it uses, and little is compiled anew. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { build } from '../scripts/build.mjs';
import { bundleOfChunks } from '../scripts/commands-bundle.mjs';
import { root } from './tidy/source-files.ts';

/** Each of these takes a millisecond or more. */
const SLOW = ['crypto', 'fs/promises', 'net', 'perf_hooks', 'stream', 'tty', 'worker_threads', 'zlib'];

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

  test('starts from what V8 compiled', () => {
    const program = `
      process.argv.splice(1, 0, 'diskwright-img');
      const { script } = require(${JSON.stringify(join(root, 'bin/launch.js'))}).launch('diskwright-img');
      process._rawDebug(script.cachedDataRejected);
    `;
    expect(node('-e', program, 'info', 'raw').stderr).toBe('false\n');
  });
});

describe('chunks as functions', () => {
  const CHUNKS = [
    {
      path: 'main.js',
      text: [
        'import {\n  first,\n  second as other\n} from "./shared.js";',
        'import "./effect.js";',
        'import path, { sep } from "node:path";',
        'import * as os from "node:os";',
        'var later = () => import("./late.js");',
        'var result = [first, other(), path.sep === sep, typeof os.tmpdir];',
        'export {\n  later,\n  result as all\n};',
      ].join('\n'),
    },
    {
      path: 'shared.js',
      text: 'log("shared");\nvar a = 1;\nvar second = () => 2;\nexport {\n  a as first,\n  second\n};',
    },
    { path: 'effect.js', text: 'import "./shared.js";\nlog("effect");' },
    { path: 'late.js', text: 'import { first } from "./shared.js";\nlog("late");\nexport {\n  first\n};' },
  ];

  test('import and export what the modules did, each run once, when it is wanted', async () => {
    const ran: string[] = [];
    const enter = new Function('require', 'log', `${bundleOfChunks(CHUNKS)}return $chunk;`);
    const main = enter(process.getBuiltinModule, (name: string) => ran.push(name))('./main.js');
    expect(main.all).toEqual([1, 2, true, 'function']);
    expect(ran).toEqual(['shared', 'effect']);
    expect(await main.later()).toEqual({ first: 1 });
    await main.later();
    expect(ran).toEqual(['shared', 'effect', 'late']);
  });

  test('statements that are not known are refused', () => {
    const odd = { path: 'odd.js', text: 'export default 1;' };
    expect(() => bundleOfChunks([odd])).toThrow('odd.js: a statement of modules that is not known here');
  });
});
