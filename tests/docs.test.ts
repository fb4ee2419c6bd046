/** What the documents say is so: files they name exist, generated pages are current, commands they show work. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path/posix';
import { describe, expect, test } from 'vitest';
import { generatedPages } from '../scripts/docs/pages.ts';
import { commands } from '../src/tools/commands/index.ts';
import { root, textFiles } from './tidy/source-files.ts';

const read = (path: string) => readFileSync(join(root, path), 'utf8');
const documents = textFiles.filter(({ path }) => path.endsWith('.md'));

/** The tree in ARCHITECTURE.md: names by indentation, other files of a folder in the descriptions. */
function filesInTree(text: string): string[] {
  const tree = /```\n([\s\S]*?)```/.exec(text)?.[1] ?? '';
  const folders: string[] = [];
  const found: string[] = [];
  for (const line of tree.split('\n')) {
    const [, indent = '', first = '', rest = ''] = /^( *)(\S+)(.*)$/.exec(line) ?? [];
    if (first === '') continue;
    const depth = indent.length / 2;
    const parent = folders.slice(0, depth).join('');
    found.push(parent + first);
    folders[depth] = first;
    const inside = first.endsWith('/') ? parent + first : parent;
    for (const name of rest.match(/\b[\w-]+(\.test)?\.ts\b/g) ?? []) found.push(inside + name);
  }
  return found;
}

function codeBlocks(text: string, language: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm'))].map(([, code = '']) => code);
}

describe('ARCHITECTURE.md', () => {
  test('names files that exist', () => {
    const files = filesInTree(read('ARCHITECTURE.md'));
    expect(files.length).toBeGreaterThan(10);
    expect(files.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });

  test('gives a reason for every dependency', () => {
    const { dependencies, devDependencies } = JSON.parse(read('package.json'));
    const table = read('ARCHITECTURE.md').split('## Dependencies')[1] ?? '';
    const packages = Object.keys({ ...dependencies, ...devDependencies }).filter((name) => !name.startsWith('@types/'));
    expect(packages.filter((name) => !table.includes(name))).toEqual([]);
  });
});

const pages = await generatedPages();

describe('generated pages', () => {
  test.each([...pages])('%s is what the schemas say: npm run docs', (path, text) => {
    expect(existsSync(join(root, path)) && read(path)).toBe(text);
  });

  test('none is left of a driver that is gone', () => {
    const present = documents.map(({ path }) => path).filter((path) => path.startsWith('docs/drivers/'));
    expect(present.filter((path) => !pages.has(path))).toEqual([]);
  });
});

describe('all documents', () => {
  test('link to files that exist', () => {
    const broken = documents.flatMap(({ path, text }) =>
      [...text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)]
        .map(([, target = '']) => normalize(join(dirname(path), target)))
        .filter((target) => !existsSync(join(root, target)))
        .map((target) => `${path}: ${target}`),
    );
    expect(broken).toEqual([]);
  });

  test('show only commands and npm scripts that exist', () => {
    const names = new Set(commands.map(({ name }) => name));
    const { scripts } = JSON.parse(read('package.json'));
    const unknown: string[] = [];
    for (const { path, text } of documents) {
      const shell = ['sh', 'console', 'text'].flatMap((language) => codeBlocks(text, language)).join('\n');
      for (const [, name = ''] of shell.matchAll(/^(?:\$ )?(?:npx )?diskwright(?:-img)? ([a-z]\w*)/gm)) {
        if (!names.has(name)) unknown.push(`${path}: diskwright ${name}`);
      }
      for (const [, script = ''] of text.matchAll(/\bnpm run ([\w:]+)/g)) {
        if (!(script in scripts)) unknown.push(`${path}: npm run ${script}`);
      }
    }
    expect(unknown).toEqual([]);
  });

  test('show code that is part of a tested example', () => {
    const examples = textFiles
      .filter(({ path }) => path.startsWith('examples/'))
      .map(({ text }) => text.replace(/^ +/gm, ''));
    const loose = documents.flatMap(({ path, text }) =>
      codeBlocks(text, 'ts')
        .filter((code) => !examples.some((example) => example.includes(code.replace(/^ +/gm, '').trim())))
        .map((code) => `${path}: ${code.split('\n')[0]} …`),
    );
    expect(loose, 'a ts block is a copy of lines of examples/*.ts').toEqual([]);
  });
});

test('what is executable in git: the commands and .ci/run', () => {
  const listing = execFileSync('git', ['ls-files', '-s', 'bin', '.ci'], { cwd: root, encoding: 'utf8' });
  const executable = listing
    .split('\n')
    .filter((line) => line.startsWith('100755'))
    .map((line) => line.split('\t')[1]);
  expect(executable).toEqual([
    '.ci/run',
    'bin/diskwright',
    'bin/diskwright-img',
    'bin/diskwright-io',
    'bin/diskwright-nbd',
  ]);
});
