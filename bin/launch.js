'use strict';
const { existsSync } = require('node:fs');
const path = require('node:path');

/** Runs a command's bundle in this very process, so that its pid and signals are those of the caller. */
module.exports = function launch(command) {
  const bundle = path.join(__dirname, '..', 'dist', `${command}.cjs`);
  if (!existsSync(bundle)) {
    const root = path.dirname(__dirname);
    process.stderr.write(
      `${path.basename(process.argv[1])}: not built yet: run \`npm start\` (or \`npm ci\`) in ${root}\n`,
    );
    process.exit(1);
  }
  require(bundle);
};
