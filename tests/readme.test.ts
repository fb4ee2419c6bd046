/**
 * What README.md shows is what the commands print: its console blocks are run in an empty folder, one after the other.
 * `DISKWRIGHT_UPDATE=1 npx vitest run tests/readme.test.ts` puts the real output in.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { build } from '../scripts/build.mjs';
import { root } from './tidy/source-files.ts';

const path = join(root, 'README.md');
const folder = mkdtempSync(join(tmpdir(), 'diskwright-readme-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeAll(async () => {
  await build();
});

/** Random or up to the file system. */
function withoutChance(text: string): string {
  return text.replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, 'UUID').replace(/^( *disk size:).*$/gm, '$1 SOME');
}

function run(command: string): string {
  const env = { ...process.env, PATH: `${join(root, 'bin')}${delimiter}${process.env.PATH}` };
  const { stdout } = spawnSync('sh', ['-c', `{ ${command}\n} 2>&1`], { cwd: folder, env, encoding: 'utf8' });
  return stdout;
}

function withRealOutput(readme: string): string {
  return readme.replace(/^```console\n([\s\S]*?)^```$/gm, (_, block: string) => {
    const commands = block.split('\n').filter((line) => line.startsWith('$ '));
    const shown = commands.map((line) => `${line}\n${run(line.slice(2))}`);
    return `\`\`\`console\n${shown.join('')}\`\`\``;
  });
}

test('the console blocks of README.md show what is printed', () => {
  const readme = readFileSync(path, 'utf8');
  const real = withRealOutput(readme);
  if (process.env.DISKWRIGHT_UPDATE === '1') writeFileSync(path, real);
  else expect(withoutChance(readme)).toBe(withoutChance(real));
});
