'use strict';
const { readFileSync } = require('node:fs');
const path = require('node:path');
const { Script } = require('node:vm');

/** All commands in one, made by the build (scripts/commands-bundle.mjs). */
const BUNDLE = path.join(__dirname, '..', 'dist', 'commands.js');
/** How many characters of the bundle's beginning are its mark, which its compiled forms begin with too. */
const MARK = 40;

function bytesOf(file) {
  try {
    return readFileSync(file);
  } catch {
    return undefined;
  }
}

/** Where is what V8 compiled of the bundle in work of one kind. */
const compiledFile = (name) => `${BUNDLE}.${name}.cache`;

/** Undefined where there is none of this very bundle. */
function compiledForm(name, mark) {
  const bytes = bytesOf(compiledFile(name));
  return bytes?.latin1Slice(0, MARK) === mark ? bytes.subarray(MARK) : undefined;
}

/** The kinds of work whose compiled form will do, best first: that of the command's first word, or of any on an image. */
function kindsOfWork(command) {
  const [, , word] = process.argv;
  return /^[a-z]+$/.test(word) ? [word, 'info'] : [command];
}

/**
 * Runs a command in this very process, so that its pid and signals are those of the caller. `kinds`: of its work.
 * Returns the bundle's mark and its script.
 */
function launch(command, kinds = kindsOfWork(command)) {
  const bytes = bytesOf(BUNDLE);
  if (bytes === undefined) {
    const root = path.dirname(__dirname);
    process.stderr.write(
      `${path.basename(process.argv[1])}: not built yet: run \`npm start\` (or \`npm ci\`) in ${root}\n`,
    );
    process.exit(1);
  }
  // It is of ASCII alone, and so long a text is not copied into V8's heap.
  const source = bytes.latin1Slice();
  const mark = source.slice(0, MARK);
  let compiled;
  for (const kind of kinds) compiled ??= compiledForm(kind, mark);
  // Without a compiled form it starts a little later; V8 refuses what another version of it has compiled.
  const script = new Script(source, { filename: BUNDLE, cachedData: compiled });
  script.runInThisContext()(require, BUNDLE)(`./${command}.js`);
  return { mark, script };
}

module.exports = { compiledFile, launch };
