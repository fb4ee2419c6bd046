/** What the packages' entries export, found in the sources' text. */
import { dirname, join } from 'node:path/posix';
import { type SourceFile, textFiles } from './source-files.ts';

export interface Exported {
  readonly path: string;
  readonly name: string;
  readonly line: number;
  /** The line above ends a docstring. */
  readonly documented: boolean;
}

const FROM = /^export (?:type )?(?:\{([^}]*)\}|\*) from '(\.[^']+)';/gm;
const DECLARATION = /^export (?:abstract |async )*(?:class|const|function|interface|type) (\w+)/;

/** The declarations behind the `export` statements of a file, those of files that it passes on included. */
export function exportedFrom(path: string): Exported[] {
  const file = textFiles.find((each) => each.path === path);
  if (file === undefined) throw new Error(`${path} is not there`);
  const passedOn = [...file.text.matchAll(FROM)].flatMap(([, names, specifier = '']) => {
    const found = exportedFrom(join(dirname(path), specifier));
    if (names === undefined) return found;
    const wanted = new Set(
      names.split(',').map((each) =>
        each
          .trim()
          .replace(/^type /, '')
          .replace(/ as .*/, ''),
      ),
    );
    return found.filter(({ name }) => wanted.has(name));
  });
  return [...passedOn, ...declarationsOf(file)];
}

function declarationsOf({ path, lines }: SourceFile): Exported[] {
  return lines.flatMap((text, index) => {
    const name = DECLARATION.exec(text)?.[1];
    if (name === undefined) return [];
    return { path, name, line: index + 1, documented: (lines[index - 1] ?? '').endsWith('*/') };
  });
}
