/**
 * What npm runs of a clone that it installs into a project, and at the end of `npm ci`: builds commands, library and
 * declarations. For a clone without packages of its own they are installed first, which npm does not do for a folder.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { checkNodeVersion, installPackages, root } from './install.mjs';

try {
  checkNodeVersion();
  if (!existsSync(join(root, 'node_modules/esbuild'))) installPackages();
  const { build } = await import('./build.mjs');
  await build({ types: true });
} catch (error) {
  process.stderr.write(`build failed: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
