/**
 * Builds dist/: the commands as one text (the fastest to start), the library as ES modules with shared chunks and, with
 * --types, its declarations. Does nothing while the sources are unchanged.
 *
 *   node scripts/build.mjs [--types] [--force]
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleOf, lateParts } from './commands-bundle.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'dist');

/** What bin/launch.js starts. */
const COMMANDS = {
  diskwright: 'src/tools/diskwright.ts',
  'diskwright-img': 'src/tools/img.ts',
  'diskwright-nbd': 'src/tools/nbd.ts',
  'diskwright-io': 'src/tools/io.ts',
};
/** What most runs of the commands can do without, and is not called for every request. */
const LATE = {
  qcow2: ['create', 'encryption-new', 'measure', 'node', 'stream'].map((name) => `src/formats/qcow2/${name}.ts`),
  filters: ['blkdebug', 'blkverify', 'log'].map((name) => `src/filters/${name}/node.ts`),
  nbd: ['src/nbd/client/open.ts'],
};
/** What else is run. */
const PROGRAMS = { tour: 'src/tools/tour.ts', 'lane-worker': 'src/node/lane-worker.ts' };
/**
 * What is run so that V8 compiles it: usual work on small files in an empty folder. Kinds of work are those that
 * bin/launch.js asks for: a command's first word, or without one the command.
 */
const COMPILED = {
  diskwright: ['diskwright --version'],
  'diskwright-img': ['diskwright-img --version'],
  convert: [
    'diskwright-img convert -f raw -O vdi raw a.vdi',
    'diskwright-img convert -O raw a.vdi b.raw',
    'diskwright-img convert -O qcow2 a.vdi a.qcow2',
    'diskwright-img convert -O vdi a.qcow2 b.vdi',
  ],
  compare: ['diskwright-img compare a.vdi a.qcow2', 'diskwright-img compare -f raw raw a.vdi'],
  info: ['diskwright-img info a.vdi', 'diskwright-img info a.qcow2'],
  check: ['diskwright-img check a.vdi', 'diskwright-img check a.qcow2'],
  create: ['diskwright-img create -f vdi c.vdi 1M', 'diskwright-img create -f qcow2 c.qcow2 1M'],
  'diskwright-io': ['diskwright-io -c read\t0\t512 a.vdi', 'diskwright-io -c write\t0\t512 a.qcow2'],
  // It listens nowhere.
  'diskwright-nbd': ['diskwright-nbd -k missing/socket a.qcow2', 'diskwright-nbd -k missing/socket a.vdi'],
};
const LIBRARY = { index: 'src/index.ts', 'node/index': 'src/node/index.ts', 'testing/index': 'src/testing/index.ts' };

/** Scripts have no import.meta; code that looks for modules from its own place gets the bundle's, which will do as well. */
const PLACE = { 'import.meta.url': '__filename', 'import.meta.dirname': '__dirname' };

/** Changes whenever a source, the build itself or a dependency's version does. */
function sourcesStamp() {
  const hash = createHash('sha256');
  const add = (path) => {
    const { mtimeMs, size } = statSync(join(root, path));
    hash.update(`${path} ${mtimeMs} ${size}\n`);
  };
  const parts = ['scripts/build.mjs', 'scripts/commands-bundle.mjs', 'scripts/compile-command.cjs', 'bin/launch.js'];
  for (const path of ['package.json', 'package-lock.json', 'tsconfig.json', ...parts]) add(path);
  const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' });
  for (const path of sources.sort()) if (path.endsWith('.ts') && !path.endsWith('.test.ts')) add(join('src', path));
  return hash.digest('hex');
}

function isCurrent(part, stamp) {
  const file = join(dist, `${part}.stamp`);
  return existsSync(file) && readFileSync(file, 'utf8') === stamp;
}

function markCurrent(part, stamp) {
  mkdirSync(dist, { recursive: true });
  writeFileSync(join(dist, `${part}.stamp`), stamp);
}

async function bundle() {
  const esbuild = await import('esbuild');
  const shared = {
    absWorkingDir: root,
    bundle: true,
    write: false,
    platform: 'node',
    target: 'node20.19',
    packages: 'external',
    logLevel: 'warning',
  };
  const small = { minifyWhitespace: true, minifySyntax: true, legalComments: 'none' };
  const late = lateParts(root, LATE);
  const [commands, ...others] = await Promise.all([
    esbuild.build({
      ...shared,
      entryPoints: { ...COMMANDS, ...late.entryPoints },
      plugins: [late.plugin],
      format: 'esm',
      splitting: true,
      outdir: dist,
      define: PLACE,
      metafile: true,
    }),
    esbuild.build({
      ...shared,
      ...small,
      entryPoints: PROGRAMS,
      format: 'cjs',
      outdir: dist,
      outExtension: { '.js': '.cjs' },
      define: PLACE,
    }),
    esbuild.build({
      ...shared,
      entryPoints: LIBRARY,
      format: 'esm',
      splitting: true,
      chunkNames: 'chunks/[name]-[hash]',
      outdir: join(dist, 'lib'),
    }),
  ]);
  const minify = async (text) => (await esbuild.transform(text, { ...small, target: shared.target })).code;
  const files = others.flatMap((result) => result.outputFiles);
  replaceFiles([...files, { path: join(dist, 'commands.js'), contents: await bundleOf(commands, minify) }]);
}

/** Writes each file in one step, so that a command started meanwhile sees the old one or the new one; then drops what is left over. */
function replaceFiles(files) {
  for (const { path, contents } of files) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(`${path}.${process.pid}`, contents);
    renameSync(`${path}.${process.pid}`, path);
  }
  const wanted = new Set(files.map(({ path }) => path));
  for (const folder of [dist, join(dist, 'lib/chunks')]) {
    for (const name of readdirSync(folder)) {
      const path = join(folder, name);
      if (/\.(c?js|cache)$/.test(path) && !wanted.has(path)) rmSync(path, { force: true });
    }
  }
}

/** So much data that `convert` and `compare` share it between threads (`WORTHWHILE` in src/jobs/bulk-lanes.ts), in runs. */
function writeSample(path) {
  const data = Buffer.alloc(4 << 20, 1);
  const file = openSync(path, 'w');
  for (let run = 0; run < 17; run++) writeSync(file, data, 0, data.length, run * 2 * data.length);
  closeSync(file);
}

/** A start takes a quarter less time with the compiled form; without it a command works as well. */
function compileCommands() {
  const folder = mkdtempSync(join(tmpdir(), 'diskwright-build-'));
  try {
    writeSample(join(folder, 'raw'));
    const program = join(root, 'scripts/compile-command.cjs');
    for (const [kind, runs] of Object.entries(COMPILED)) {
      for (const run of runs) {
        spawnSync(process.execPath, [program, kind, ...run.split(' ')], { cwd: folder, stdio: 'ignore' });
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function declarations() {
  const tsc = fileURLToPath(new URL('bin/tsc', import.meta.resolve('typescript/package.json')));
  rmSync(join(dist, 'types'), { recursive: true, force: true });
  const run = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
  if (run.status !== 0) throw new Error('the declarations could not be made');
}

/** Builds what is out of date. True: something was. */
export async function build({ types = false, force = false } = {}) {
  const stamp = sourcesStamp();
  const stale = force || !isCurrent('bundles', stamp);
  if (stale) {
    await bundle();
    compileCommands();
    markCurrent('bundles', stamp);
  }
  if (types && (force || !isCurrent('types', stamp))) {
    declarations();
    markCurrent('types', stamp);
  }
  return stale;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const flags = process.argv.slice(2);
  try {
    await build({ types: flags.includes('--types'), force: flags.includes('--force') });
  } catch (error) {
    // esbuild has printed its own findings.
    process.stderr.write(`build failed: ${error instanceof Error ? error.message : error}\n`);
    process.exitCode = 1;
  }
}
