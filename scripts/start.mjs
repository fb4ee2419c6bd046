/** `npm start`: sets up what is missing, then runs a command on the caller's files, or without arguments the guided tour. */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { join } from 'node:path';
import { checkNodeVersion, installPackages, root } from './install.mjs';
import { installPeers, pathWithSystemFolders } from './peers.mjs';

async function setUp(tour) {
  checkNodeVersion();
  installPackages();
  const { build } = await import('./build.mjs');
  await build();
  if (tour) installPeers();
}

/** Exit status as a shell would report it. */
function run(program, args) {
  const cwd = process.env.INIT_CWD ?? process.cwd();
  const child = spawn(process.execPath, [program, ...args], {
    cwd,
    stdio: 'inherit',
    env: { ...process.env, PATH: pathWithSystemFolders() },
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1']) process.on(signal, () => child.kill(signal));
  return new Promise((resolve) => {
    child.on('exit', (code, signal) => resolve(code ?? 128 + (constants.signals[signal] ?? 0)));
  });
}

const args = process.argv.slice(2);
const tour = args.length === 0;
try {
  await setUp(tour);
  process.exitCode = await run(join(root, tour ? 'dist/tour.cjs' : 'bin/diskwright'), args);
} catch (error) {
  process.stderr.write(`npm start: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
