/**
 * The commands as one text: every chunk that esbuild makes of them is a function in it, called when the chunk is first
 * wanted. So what a command does not use is neither compiled nor run, and there is one file to read.
 */

/** Statements that esbuild prints for modules: each begins a line. */
const IMPORT = /^import (?:(?:\* as )?([\w$]+)?(?:, )?(\{[^}]*\})? from )?"([^"]+)";$/gm;
const EXPORT = /^export (\{[^}]*\});$/gm;
/** Chunks have a name beginning so; all else is a package or a module of Node. */
const CHUNK = './';

/** `{ a, b as c }` as a pattern, or as a literal. */
const object = (names) => names.replaceAll(' as ', ': ');

/** `whole`: its name as a whole, which is also its default export where it is not a chunk. */
function importAsConstant(_statement, whole, names, from) {
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

/**
 * Statements that leave a function `$chunk(name)`, which gives what a chunk exports, made of ES modules that esbuild has
 * split, each with its name (`path`) in one folder. Exports are what they are when a chunk has run. They use `require`.
 */
export function bundleOfChunks(chunks) {
  return `
const $done = new Map();
const $later = async (name) => $chunk(name);
function $chunk(name) {
  let exported = $done.get(name);
  if (exported === undefined) $done.set(name, (exported = $chunks[name]() ?? {}));
  return exported;
}
const $chunks = {
${chunks.map(chunkAsFunction).join(',\n')}
};`;
}
