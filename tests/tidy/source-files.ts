/** What the house-rule tests look at: the files git knows or would take, as text. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path/posix';
import { fileURLToPath } from 'node:url';

export const root: string = fileURLToPath(new URL('../..', import.meta.url));

export interface SourceFile {
  /** From the project's root, with forward slashes. */
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

const TEXT = /\.(ts|mjs|js|json|md|yml|yaml)$|^bin\/|^\.ci\/|^\.gitignore$|^LICENSE$/;

function listFiles(): string[] {
  const output = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '-z'], { cwd: root, encoding: 'utf8' });
  return [...new Set(output.split('\0'))].filter((path) => path !== '' && existsSync(join(root, path))).sort();
}

export const textFiles: readonly SourceFile[] = listFiles()
  .filter((path) => TEXT.test(path))
  .map((path) => {
    const text = readFileSync(join(root, path), 'utf8');
    return { path, text, lines: text.split('\n') };
  });

export function filesIn(...folders: string[]): SourceFile[] {
  return textFiles.filter(({ path }) => folders.some((folder) => path.startsWith(`${folder}/`)));
}

export function isTest(path: string): boolean {
  return path.endsWith('.test.ts');
}

export interface Import {
  readonly line: number;
  readonly specifier: string;
  /** The file it leads to, from the root; undefined for packages and node: modules. */
  readonly target: string | undefined;
}

const IMPORT = /(?:^|\s|\()(?:from|import)\s*\(?\s*['"]([^'"\n]+)['"]/;

export function importsOf(file: SourceFile): Import[] {
  const imports: Import[] = [];
  file.lines.forEach((text, index) => {
    const code = text.trimStart();
    if (code.startsWith('*') || code.startsWith('//')) return;
    const specifier = IMPORT.exec(code)?.[1];
    if (specifier === undefined) return;
    const target = specifier.startsWith('.') ? join(dirname(file.path), specifier) : undefined;
    imports.push({ line: index + 1, specifier, target });
  });
  return imports;
}

export interface CodeBlock {
  readonly name: string;
  readonly line: number;
  readonly length: number;
}

const STARTS_FUNCTION = [
  /^\s*(?:export )?(?:default )?(?:async )?function\b/,
  /=> \{$/,
  /^\s*(?:(?:public|private|protected|static|override|async|get|set) )*\*?#?\w+(?:<.*>)?\(.*\).*\{$/,
  /^\s*\).*\{$/,
];
const NOT_A_FUNCTION = /^\s*(?:\} )?(?:if|for|while|switch|catch|else|do|try|with)\b/;

/**
 * Functions and their lengths in lines, braces included. Relies on the formatter: a body ends at the first line that
 * closes a brace at the indentation of the line that opened it.
 */
export function functionsOf(file: SourceFile): CodeBlock[] {
  const found: CodeBlock[] = [];
  file.lines.forEach((text, start) => {
    if (!text.endsWith('{') || NOT_A_FUNCTION.test(text) || !STARTS_FUNCTION.some((shape) => shape.test(text))) return;
    const indent = text.length - text.trimStart().length;
    const closing = new RegExp(`^ {${indent}}\\}`);
    const rest = file.lines.slice(start + 1).findIndex((line) => closing.test(line));
    if (rest >= 0) found.push({ name: text.trim(), line: start + 1, length: rest + 2 });
  });
  return found;
}
