/**
 * Builds dist/: the commands as CommonJS bundles (one file each: the fastest to start), the library as ES modules
 * with shared chunks and, with --types, its declarations. Does nothing while the sources are unchanged.
 *
 *   node scripts/build.mjs [--types] [--force]
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'dist');

const COMMANDS = {
  diskwright: 'src/tools/diskwright.ts',
  'diskwright-img': 'src/tools/img.ts',
  'diskwright-nbd': 'src/tools/nbd.ts',
  'diskwright-io': 'src/tools/io.ts',
  tour: 'src/tools/tour.ts',
  'lane-worker': 'src/node/lane-worker.ts',
};
/** What is run of a command so that V8 compiles it: work of a common kind on small files that it makes. */
const COMPILED = {
  diskwright: (raw, vdi) => ['convert', '-O', 'vdi', raw, vdi],
  'diskwright-img': (raw, vdi) => ['convert', '-f', 'raw', '-O', 'vdi', raw, vdi],
  'diskwright-io': (raw) => ['-f', 'raw', '-c', 'read 0 512', raw],
  'diskwright-nbd': () => ['--version'],
};
const LIBRARY = { index: 'src/index.ts', 'node/index': 'src/node/index.ts', 'testing/index': 'src/testing/index.ts' };

/** Changes whenever a source, the build itself or a dependency's version does. */
function sourcesStamp() {
  const hash = createHash('sha256');
  const add = (path) => {
    const { mtimeMs, size } = statSync(join(root, path));
    hash.update(`${path} ${mtimeMs} ${size}\n`);
  };
  for (const path of ['package.json', 'package-lock.json', 'tsconfig.json', 'scripts/build.mjs']) add(path);
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
  const results = await Promise.all([
    esbuild.build({
      ...shared,
      entryPoints: COMMANDS,
      format: 'cjs',
      outdir: dist,
      outExtension: { '.js': '.cjs' },
      minifyWhitespace: true,
      minifySyntax: true,
      legalComments: 'none',
      // CommonJS has no import.meta.url; code that needs its own place gets that of the bundle.
      define: { 'import.meta.url': 'bundleUrl' },
      banner: { js: 'const bundleUrl=require("node:url").pathToFileURL(__filename).href;' },
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
  replaceFiles(results.flatMap((result) => result.outputFiles).map(marked));
}

/** A bundle of a command begins with a mark of its content, by which its compiled form is known to be of it. */
function marked({ path, contents }) {
  if (!path.endsWith('.cjs')) return { path, contents };
  const mark = `/*${createHash('sha256').update(contents).digest('hex').slice(0, 36)}*/`;
  return { path, contents: Buffer.concat([Buffer.from(mark), contents]) };
}

/** Writes each file in one step, so that a command started meanwhile sees the old one or the new one; then drops what is left over. */
function replaceFiles(files) {
  for (const { path, contents } of files) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(`${path}.${process.pid}`, contents);
    renameSync(`${path}.${process.pid}`, path);
  }
  const wanted = new Set(files.map(({ path }) => path));
  const chunks = join(dist, 'lib/chunks');
  if (!existsSync(chunks)) return;
  for (const name of readdirSync(chunks)) if (!wanted.has(join(chunks, name))) rmSync(join(chunks, name));
}

/** A start takes a fifth less time with the compiled form; without it a command works as well. */
function compileCommands() {
  const folder = mkdtempSync(join(tmpdir(), 'diskwright-build-'));
  try {
    const raw = join(folder, 'disk.raw');
    writeFileSync(raw, Buffer.alloc(1 << 20, 1));
    for (const [command, args] of Object.entries(COMPILED)) {
      const program = join(root, 'scripts/compile-command.cjs');
      spawnSync(process.execPath, [program, command, ...args(raw, join(folder, `${command}.vdi`))], {
        stdio: 'ignore',
      });
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
