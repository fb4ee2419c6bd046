/** The house rules, as tests. Each failure names the place and what to do instead. */
import { hostname } from 'node:os';
import { describe, expect, test } from 'vitest';
import { exportedFrom } from './tidy/exports.ts';
import { filesIn, functionsOf, importsOf, isTest, type SourceFile, textFiles } from './tidy/source-files.ts';

const FILE_LINES = 450;
const FUNCTION_LINES = 70;

/** Folders of src/ and those they may import from, besides their own. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  bytes: [],
  core: ['bytes'],
  crypto: ['bytes', 'core'],
  protocols: ['bytes', 'core'],
  formats: ['bytes', 'core', 'crypto', 'bitmaps'],
  filters: ['bytes', 'core'],
  bitmaps: ['bytes', 'core'],
  jobs: ['bytes', 'core', 'crypto', 'protocols', 'formats', 'filters', 'bitmaps'],
  nbd: ['bytes', 'core', 'crypto', 'protocols', 'formats', 'filters', 'bitmaps', 'jobs'],
  node: ['bytes', 'core', 'crypto', 'protocols', 'formats', 'filters', 'bitmaps', 'jobs', 'nbd'],
  testing: ['bytes', 'core', 'crypto', 'protocols', 'formats', 'filters', 'bitmaps', 'jobs', 'nbd'],
  tools: ['bytes', 'core', 'crypto', 'protocols', 'formats', 'filters', 'bitmaps', 'jobs', 'nbd', 'node'],
};

/** What runs in a browser too. */
const BROWSER_SAFE = [
  'src/bytes',
  'src/core',
  'src/crypto',
  'src/protocols',
  'src/formats',
  'src/filters',
  'src/bitmaps',
  'src/jobs',
  'src/nbd',
];

/** Files above the folders, and who may import them. */
const SHARED: ReadonlyMap<string, readonly string[]> = new Map([
  ['src/drivers.ts', ['node', 'testing', 'tools']],
  ['src/graph.ts', ['node']],
  ['src/index.ts', ['node']],
  ['package.json', ['tools']],
]);

/** Files that are used from outside: packages' entries and programs. */
const ENTRIES = new Set([
  'src/index.ts',
  'src/node/index.ts',
  'src/testing/index.ts',
  'src/tools/diskwright.ts',
  'src/tools/img.ts',
  'src/tools/nbd.ts',
  'src/tools/io.ts',
  'src/tools/tour.ts',
  'src/node/lane-worker.ts',
]);

interface BannedText {
  readonly pattern: RegExp;
  readonly instead: string;
  /** Folders it is banned in; absent: everywhere. */
  readonly folders?: readonly string[];
  /** Tests may. */
  readonly shippedOnly?: boolean;
}

const BANNED: readonly BannedText[] = [
  {
    pattern: /\bconsole\.\w/,
    instead: 'process.stdout.write in tools, host.warn or host.notice below',
    folders: ['src', 'tests', 'bench', 'scripts'],
  },
  { pattern: /\bas any\b/, instead: 'a type, or unknown and a check' },
  { pattern: /@ts-(ignore|expect-error|nocheck)/, instead: 'code that type-checks' },
  { pattern: /\b(TODO|FIXME|XXX|HACK)\b/, instead: 'do it, or say in the documents that it is not done' },
  { pattern: /\b(test|describe|it)\.only\b/, instead: 'run one file: npx vitest run FILE' },
  { pattern: /\bMath\.random\b/, instead: 'host.random, or a seeded generator in tests', folders: ['src', 'tests'] },
  {
    pattern: /\b(Date\.now|performance\.now|new Date\(\))/,
    instead: 'host.clock',
    folders: [...BROWSER_SAFE, 'src/testing'],
  },
  { pattern: /\b(setTimeout|setInterval|setImmediate)\(/, instead: 'host.clock.sleep', folders: BROWSER_SAFE },
  {
    pattern: /\b(process|Buffer)\.\w/,
    instead: 'the Host interface; Uint8Array',
    folders: [...BROWSER_SAFE, 'src/testing'],
    shippedOnly: true,
  },
  {
    pattern: /\bthrow new Error\(/,
    instead: 'BlockError with a code, TypeError for misuse, invariant() for our own mistakes',
    folders: [...BROWSER_SAFE, 'src/node'],
    shippedOnly: true,
  },
  { pattern: /\/(work|root|home)\//, instead: 'a relative path or a temporary folder' },
  { pattern: /\bissue #?\d/i, instead: 'the rule or the behaviour itself' },
];

function places(files: readonly SourceFile[], pattern: RegExp): string[] {
  return files.flatMap(({ path, lines }) =>
    lines.flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
  );
}

/** This file spells out what it bans; the lock file is not ours to word. */
const judged = textFiles.filter(({ path }) => path !== 'tests/tidy.test.ts' && path !== 'package-lock.json');

const sources = filesIn('src').filter(({ path }) => path.endsWith('.ts'));
const code = judged.filter(({ path }) => /\.(ts|mjs|js)$/.test(path));

describe('words and calls', () => {
  test.each(BANNED)('no $pattern: use $instead', ({ pattern, folders, shippedOnly }) => {
    const within = (path: string) => folders?.some((folder) => path.startsWith(`${folder}/`)) ?? true;
    const files = judged.filter(({ path }) => within(path) && !(shippedOnly && isTest(path)));
    expect(places(files, pattern)).toEqual([]);
  });

  test('no name of this machine in any file', () => {
    const name = hostname();
    if (name.length < 5 || name === 'localhost') return;
    expect(judged.filter(({ text }) => text.includes(name)).map(({ path }) => path)).toEqual([]);
  });

  test('messages of errors do not end with a period, unless the line above cites the rule that words them so', () => {
    const ends = /(?:new BlockError|withErrno|addContext)\([^)]*?(['"`])(?:(?!\1).)*[.!]\1/;
    const found = sources
      .filter(({ path }) => !isTest(path))
      .flatMap(({ path, lines }) =>
        lines.flatMap((line, index) => {
          const cited = /\b(V|BL|T)-[A-Z0-9-]*\d/.test(`${lines[index - 1] ?? ''}${line}`);
          return ends.test(line) && !cited ? [`${path}:${index + 1}: ${line.trim()}`] : [];
        }),
      );
    expect(found).toEqual([]);
  });
});

describe('imports', () => {
  test('node: modules only in src/node, src/tools and what is not shipped', () => {
    const found = sources
      .filter(({ path }) => !isTest(path) && !/^src\/(node|tools)\//.test(path))
      .flatMap((file) => importsOf(file).map((it) => ({ ...it, path: file.path })))
      .filter(({ specifier }) => specifier.startsWith('node:') || specifier === 'koffi')
      .map(({ path, line, specifier }) => `${path}:${line}: imports ${specifier}; ask the Host instead`);
    expect(found).toEqual([]);
  });

  test('go one way: bytes, core, protocols and formats, jobs, then node, tools and testing', () => {
    const found: string[] = [];
    for (const file of sources.filter(({ path }) => !isTest(path))) {
      const from = file.path.split('/')[1] ?? '';
      const allowed = MAY_IMPORT[from];
      if (allowed === undefined) continue;
      for (const { line, target } of importsOf(file)) {
        const to = target?.split('/')[1];
        if (target === undefined || SHARED.get(target)?.includes(from)) continue;
        if (target.startsWith('src/') && (to === from || allowed.includes(to ?? ''))) continue;
        found.push(`${file.path}:${line}: ${from} may import from ${[from, ...allowed].join(', ')}, not ${target}`);
      }
    }
    expect(found).toEqual([]);
  });

  test('every folder of src has its place in that order', () => {
    const folders = new Set(
      sources.map(({ path }) => path.split('/')[1] ?? '').filter((name) => !name.endsWith('.ts')),
    );
    expect([...folders].filter((name) => MAY_IMPORT[name] === undefined)).toEqual([]);
  });

  test('the main entry imports nothing that needs Node.js', () => {
    const index = sources.find(({ path }) => path === 'src/index.ts');
    const targets = index === undefined ? [] : importsOf(index).map(({ target }) => target ?? '');
    expect(targets.filter((target) => /^src\/(node|tools|testing)\//.test(target))).toEqual([]);
  });

  test('every source file is used by another or is an entry', () => {
    const used = new Set(ENTRIES);
    const pending = [...ENTRIES];
    for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
      const file = sources.find((candidate) => candidate.path === path);
      for (const { target } of file === undefined ? [] : importsOf(file)) {
        if (target === undefined || used.has(target)) continue;
        used.add(target);
        pending.push(target);
      }
    }
    const dead = sources.map(({ path }) => path).filter((path) => !isTest(path) && !used.has(path));
    expect(dead, 'used by no entry: delete it, or use it').toEqual([]);
  });

  test('every helper of the tests is used by one', () => {
    const helpers = filesIn('tests').filter(
      ({ path }) => path.endsWith('.ts') && !isTest(path) && !path.startsWith('tests/set-up/'),
    );
    const targets = new Set(textFiles.flatMap((file) => importsOf(file).map(({ target }) => target)));
    const started = (path: string) => textFiles.some(({ text }) => text.includes(`/${path.split('/').at(-1)}'`));
    expect(helpers.map(({ path }) => path).filter((path) => !targets.has(path) && !started(path))).toEqual([]);
  });
});

describe('exports', () => {
  const PUBLIC = ['src/index.ts', 'src/node/index.ts', 'src/testing/index.ts'];
  const programs = code.filter(({ path }) => /^(src|tests|bench|examples|scripts)\//.test(path));
  const words = new Map(programs.map(({ path, text }) => [path, new Set(text.match(/\w+/g))]));

  /** Exported functions, classes and constants (types may be named for their users' sake). */
  const exported = sources
    .filter(({ path }) => !isTest(path) && !PUBLIC.includes(path))
    .flatMap(({ path, text }) =>
      [...text.matchAll(/^export (?:async )?(?:const|function\*?|(?:abstract )?class) (\w+)/gm)].map(
        ([, name = '']) => ({
          path,
          name,
          uses: (text.match(new RegExp(`\\b${name}\\b`, 'g')) ?? []).length,
          users: programs.filter((other) => other.path !== path && words.get(other.path)?.has(name)),
        }),
      ),
    );

  test('are used by another file, or need no export', () => {
    expect(exported.filter(({ users }) => users.length === 0).map(({ path, name }) => `${path}: ${name}`)).toEqual([]);
  });

  test('are used by more than tests, or are dead', () => {
    const tests = ({ path }: SourceFile) => isTest(path) || path.startsWith('tests/');
    const dead = exported.filter(({ users, uses }) => uses === 1 && users.length > 0 && users.every(tests));
    expect(dead.map(({ path, name }) => `${path}: ${name}`)).toEqual([]);
  });
});

describe('what the entries export', () => {
  test.each([
    ['src/index.ts', 250],
    ['src/node/index.ts', 280],
    ['src/testing/index.ts', 70],
  ])('%s: each has a docstring', (path, least) => {
    const all = exportedFrom(path);
    expect(all.length).toBeGreaterThan(least);
    const bare = all.filter(({ documented }) => !documented);
    expect(bare.map(({ path: place, line, name }) => `${place}:${line}: ${name}`)).toEqual([]);
  });
});

describe('size', () => {
  test(`files have at most ${FILE_LINES} lines; tables of test cases may be longer`, () => {
    const long = code.filter(({ path, lines }) => lines.length - 1 > FILE_LINES && !path.endsWith('-cases.ts'));
    expect(long.map(({ path, lines }) => `${path}: ${lines.length - 1} lines; split it by purpose`)).toEqual([]);
  });

  test(`functions have at most ${FUNCTION_LINES} lines`, () => {
    const long = code
      .filter(({ path }) => !isTest(path))
      .flatMap((file) => functionsOf(file).map((it) => ({ ...it, path: file.path })))
      .filter(({ length }) => length > FUNCTION_LINES)
      .map(({ path, line, length, name }) => `${path}:${line}: ${length} lines: ${name}`);
    expect(long).toEqual([]);
  });

  test('the scanner for long functions sees them', () => {
    const body = Array.from({ length: 80 }, () => '    step();');
    const lines = [
      'const driver = {',
      '  async open(',
      '    context: string,',
      '  ): Promise<void> {',
      ...body,
      '  },',
      '};',
    ];
    const found = functionsOf({ path: 'x.ts', text: lines.join('\n'), lines });
    expect(found).toEqual([{ name: '): Promise<void> {', line: 4, length: 82 }]);
  });
});
