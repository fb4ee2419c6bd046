/**
 * The commands as one text: every chunk that esbuild makes of them is a function in it, called when the chunk is first
 * wanted. So what a command does not use is neither compiled nor run, and there is one file to read. What many commands
 * do without is a part of its own in the text, a script that V8 is given when one of its functions is first called.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/** Statements that esbuild prints for modules: each begins a line. */
const IMPORT = /^import (?:(?:\* as )?([\w$]+)?(?:, )?(\{[^}]*\})? from )?"([^"]+)";$/gm;
const EXPORT = /^export (\{[^}]*\});$/gm;
/** Chunks have a name beginning so; all else is a package or a module of Node. */
const CHUNK = './';
/** The chunk that a late part is wanted for. */
const lateChunk = (part) => `${CHUNK}late-${part}.js`;
const partOfChunk = (name) => name.match(/^\.\/late-(.+)\.js$/)?.[1];

/**
 * For esbuild: each of `parts`, lists of modules that export functions alone, becomes a chunk, which is wanted when one of
 * the functions is first called. `root`: of their paths.
 */
export function lateParts(root, parts) {
  const partOf = new Map(
    Object.entries(parts).flatMap(([part, paths]) => paths.map((path) => [join(root, path), part])),
  );
  const namespace = 'late-part';
  const setup = (build) => {
    build.onResolve({ filter: /^late-/ }, ({ path }) => ({ path: partOfChunk(`${CHUNK}${path}.js`), namespace }));
    build.onLoad({ filter: /./, namespace }, ({ path: part }) => {
      for (const path of parts[part]) requireFunctionsAlone(join(root, path));
      return { contents: parts[part].map((path) => `export * from './${path}';`).join('\n'), resolveDir: root };
    });
    build.onResolve({ filter: /^\.\.?\// }, ({ kind, path, resolveDir, namespace: from }) => {
      const part = kind === 'import-statement' && from !== namespace && partOf.get(join(resolveDir, path));
      return part ? { path: lateChunk(part), external: true } : undefined;
    });
  };
  const entryPoints = Object.keys(parts).map((part) => [`late-${part}`, `late-${part}`]);
  return { entryPoints: Object.fromEntries(entryPoints), plugin: { name: 'late-parts', setup } };
}

function requireFunctionsAlone(path) {
  const other = readFileSync(path, 'utf8').match(/^export (?!type |interface |(?:async )?function ).*/m)?.[0];
  if (other !== undefined) throw new Error(`${path} cannot be late: not a function: ${other}`);
}

/** `{ a, b as c }` as a pattern, or as a literal. */
const object = (names) => names.replaceAll(' as ', ': ');

/** `{ a, b as c }` as functions that want the part when they are called. */
function lateFunctions(names, part) {
  const functions = names.match(/[\w$]+( as [\w$]+)?/g).map((name) => {
    const [theirs, ours = theirs] = name.split(' as ');
    return `${ours} = (...given) => $late(${JSON.stringify(part)}).${theirs}(...given)`;
  });
  return `const ${functions.join(', ')};`;
}

/** `whole`: its name as a whole, which is also its default export where it is not a chunk. */
function importAsConstant(_statement, whole, names, from) {
  const part = partOfChunk(from);
  if (part !== undefined) return names === undefined ? '' : lateFunctions(names, part);
  const value = from.startsWith(CHUNK) ? `$chunk(${JSON.stringify(from)})` : `require(${JSON.stringify(from)})`;
  if (whole === undefined && names === undefined) return `${value};`;
  return `const ${[whole, names && object(names)].filter(Boolean).join(` = ${value}, `)} = ${value};`;
}

function chunkAsFunction({ path, text }) {
  const body = text
    .replace(IMPORT, importAsConstant)
    .replace(EXPORT, (_statement, names) => `return ${object(names.replace(/([\w$]+) as ([\w$]+)/g, '$2 as $1'))};`)
    .replace(/\bimport\("(\.\/[^"]+)"\)/g, '$later("$1")');
  if (/^(import|export)\b/m.test(body)) throw new Error(`${path}: a statement of modules that is not known here`);
  return `${JSON.stringify(`${CHUNK}${path}`)}() {\n${body}\n}`;
}

const chunksAsObject = (chunks) => `const $chunks = {\n${chunks.map(chunkAsFunction).join(',\n')}\n};`;

/**
 * The function of all that is in no late part, which returns `$chunk(name)`: what a chunk exports, made of ES modules that
 * esbuild has split. Exports are what they are when a chunk has run. `$part(name)`: the function of a late part.
 */
const commandsOf = (chunks) => ({
  parameters: ['require', '__filename', '__dirname', '$part'],
  statements: `
const $done = new Map();
const $later = async (name) => $chunk(name);
const $late = (part) => {
  const name = \`./late-\${part}.js\`;
  if ($chunks[name] === undefined) Object.assign($chunks, $part(part)(require, __filename, __dirname, $chunk, $later, $late));
  return $chunk(name);
};
function $chunk(name) {
  let exported = $done.get(name);
  if (exported === undefined) $done.set(name, (exported = $chunks[name]() ?? {}));
  return exported;
}
${chunksAsObject(chunks)}`,
  result: '$chunk',
});

/** The function of a late part, which returns its chunks. */
const partOf = (chunks) => ({
  parameters: ['require', '__filename', '__dirname', '$chunk', '$later', '$late'],
  statements: chunksAsObject(chunks),
  result: '$chunks',
});

/** By the name of a late part the chunks that it alone wants, and by '' all others. */
function chunksByPart({ outputFiles, metafile: { outputs } }) {
  const partsOf = new Map();
  const visit = (path, part) => {
    const parts = partsOf.get(path) ?? new Set();
    if (parts.has(part)) return;
    partsOf.set(path, parts.add(part));
    for (const { path: next, external } of outputs[path].imports) if (!external) visit(next, part);
  };
  for (const [path, { entryPoint }] of Object.entries(outputs)) {
    if (entryPoint) visit(path, partOfChunk(CHUNK + basename(path)) ?? '');
  }
  const byName = new Map([...partsOf].map(([path, [part, ...others]]) => [basename(path), others.length ? '' : part]));
  const chunks = new Map();
  for (const { path, text } of outputFiles) {
    const name = basename(path);
    const part = byName.get(name);
    chunks.set(part, [...(chunks.get(part) ?? []), { path: name, text }]);
  }
  return chunks;
}

/**
 * For bin/launch.js. In comments of a line: a mark of the content, by which what is compiled of it is known to be of it; and as
 * JSON, where each part ends, in characters behind that line. Then the parts, the commands (`''`) first. `result`: esbuild's,
 * with its metafile; `minify`: of statements.
 */
export async function bundleOf(result, minify) {
  const { '': commands, ...late } = Object.fromEntries(chunksByPart(result));
  const parts = { '': commandsOf(commands) };
  for (const [name, chunks] of Object.entries(late)) parts[name] = partOf(chunks);
  const ends = {};
  let all = '';
  for (const [name, { parameters, statements, result }] of Object.entries(parts)) {
    all += `(function(${parameters}){"use strict";${await minify(statements)}return ${result}})\n`;
    ends[name] = all.length;
  }
  const text = `//${JSON.stringify(ends)}\n${all}`;
  return `//${createHash('sha256').update(text).digest('hex')}\n${text}`;
}
