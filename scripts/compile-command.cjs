/**
 * Runs a command once and keeps what V8 compiled of it beside its bundle, for bin/launch.js:
 *
 *   node scripts/compile-command.cjs COMMAND ARGUMENTS…
 */
'use strict';
const { readFileSync, renameSync, writeFileSync } = require('node:fs');
const path = require('node:path');
const launch = require('../bin/launch.js');

const [, , command] = process.argv;
const bundle = path.join(__dirname, '..', 'dist', `${command}.cjs`);
process.argv.splice(1, 2, path.join(__dirname, '..', 'bin', command));
// Before the bundle is run: should another take its place meanwhile, the compiled form is not taken for one of that.
const mark = readFileSync(bundle).subarray(0, 40);
const script = launch(command);
process.on('exit', () => {
  writeFileSync(`${bundle}.cache.${process.pid}`, Buffer.concat([mark, script.createCachedData()]));
  renameSync(`${bundle}.cache.${process.pid}`, `${bundle}.cache`);
});
