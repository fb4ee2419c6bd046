/**
 * Runs a command once and keeps what V8 compiled of it beside the bundle, for bin/launch.js, together with what is kept
 * there for the same kind of work:
 *
 *   node scripts/compile-command.cjs KIND COMMAND ARGUMENTS…
 */
'use strict';
const { renameSync, writeFileSync } = require('node:fs');
const path = require('node:path');
const v8 = require('node:v8');
const { compiledFile, launch } = require('../bin/launch.js');

const [, , kind, command] = process.argv;
process.argv.splice(1, 3, path.join(__dirname, '..', 'bin', command));
// What ran once is kept. V8 takes a compiled form only where its flags are those it was made with, so commands set none here.
const setFlag = v8.setFlagsFromString;
v8.setFlagsFromString = () => {};
setFlag('--no-flush-bytecode');
const bundle = launch(command, [kind]);
process.on('exit', () => {
  setFlag('--flush-bytecode');
  for (const part of bundle.scripts.keys()) {
    const file = compiledFile(part, kind);
    writeFileSync(`${file}.${process.pid}`, bundle.compiled(part));
    renameSync(`${file}.${process.pid}`, file);
  }
});
