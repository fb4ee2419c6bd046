'use strict';
const { existsSync, readFileSync } = require('node:fs');
const { createRequire, wrap } = require('node:module');
const path = require('node:path');
const { Script } = require('node:vm');

/** How many characters of a bundle's first line are its mark, which its compiled form begins with too. */
const MARK = 40;

/** The compiled form of a bundle, made by the build; undefined where there is none of this very bundle. */
function compiledForm(bundle, source) {
  try {
    const bytes = readFileSync(`${bundle}.cache`);
    if (bytes.toString('latin1', 0, MARK) === source.slice(0, MARK)) return bytes.subarray(MARK);
  } catch {
    // It starts without it, a little later.
  }
  return undefined;
}

/** Runs a command's bundle in this very process, so that its pid and signals are those of the caller. Returns its script. */
module.exports = function launch(command) {
  const bundle = path.join(__dirname, '..', 'dist', `${command}.cjs`);
  if (!existsSync(bundle)) {
    const root = path.dirname(__dirname);
    process.stderr.write(
      `${path.basename(process.argv[1])}: not built yet: run \`npm start\` (or \`npm ci\`) in ${root}\n`,
    );
    process.exit(1);
  }
  const source = readFileSync(bundle, 'utf8');
  // V8 refuses what another version of it has compiled.
  const script = new Script(wrap(source), { filename: bundle, cachedData: compiledForm(bundle, source) });
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(bundle), module, bundle, path.dirname(bundle));
  return script;
};
