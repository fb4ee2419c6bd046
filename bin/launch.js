'use strict';
const { readFileSync } = require('node:fs');
const path = require('node:path');
const { Script } = require('node:vm');

/** All commands in one, made by the build (scripts/commands-bundle.mjs). */
const BUNDLE = path.join(__dirname, '..', 'dist', 'commands.js');
/** How many characters of the bundle's beginning are its mark, which its compiled forms begin with too. */
const MARK = 66;

function bytesOf(file) {
  try {
    return readFileSync(file);
  } catch {
    return undefined;
  }
}

/** Where is what V8 compiled of a part of the bundle in work of one kind. */
const compiledFile = (part, kind) => `${BUNDLE}.${part ? `${part}-` : ''}${kind}.cache`;

/** The kinds of work whose compiled form will do, best first: that of the command's first word, or of any on an image. */
function kindsOfWork(command) {
  const [, , word] = process.argv;
  return /^[a-z]+$/.test(word) ? [word, 'info'] : [command];
}

/** The text of the commands in its parts, each of which is a script of its own. */
class Bundle {
  #bytes;
  #kinds;
  /** Where the first part begins, and by their names where they end behind that. */
  #start;
  #ends;
  #mark;
  /** Those that were loaded, by the names of their parts. */
  scripts = new Map();

  constructor(bytes, kinds) {
    this.#bytes = bytes;
    this.#kinds = kinds;
    this.#mark = bytes.latin1Slice(0, MARK);
    const ends = MARK + '\n//'.length;
    this.#start = bytes.indexOf('\n', ends) + 1;
    this.#ends = Object.entries(JSON.parse(bytes.latin1Slice(ends, this.#start)));
  }

  /** Gives the chunk of a name, as all of them are given. */
  start() {
    return this.#load('')(require, BUNDLE, path.dirname(BUNDLE), (part) => this.#load(part));
  }

  /** What V8 compiled of a part up to now. */
  compiled(part) {
    return Buffer.concat([Buffer.from(this.#mark), this.scripts.get(part).createCachedData()]);
  }

  #load(part) {
    const index = this.#ends.findIndex(([name]) => name === part);
    const [from, to] = [this.#ends[index - 1]?.[1] ?? 0, this.#ends[index][1]];
    // It is of ASCII alone, and so long a text is not copied into V8's heap.
    const source = this.#bytes.latin1Slice(this.#start + from, this.#start + to);
    let cachedData;
    for (const kind of this.#kinds) cachedData ??= this.#compiledForm(part, kind);
    // Without a compiled form it starts a little later; V8 refuses what another version of it has compiled.
    const script = new Script(source, { filename: part ? `${BUNDLE}:${part}` : BUNDLE, cachedData });
    this.scripts.set(part, script);
    return script.runInThisContext();
  }

  /** Undefined where there is none of this very bundle. */
  #compiledForm(part, kind) {
    const bytes = bytesOf(compiledFile(part, kind));
    return bytes?.latin1Slice(0, MARK) === this.#mark ? bytes.subarray(MARK) : undefined;
  }
}

/**
 * Runs a command in this very process, so that its pid and signals are those of the caller. `kinds`: of its work.
 * Returns the bundle.
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
  const bundle = new Bundle(bytes, kinds);
  bundle.start()(`./${command}.js`);
  return bundle;
}

module.exports = { Bundle, compiledFile, launch };
