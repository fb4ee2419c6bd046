/** A graph in the language of Graphviz. */
import type { GraphPicture, PictureBox, PictureLink } from './model.ts';
import { limitsLine, linkPermissions, linkTitle, shortened, sizeLine, titleOf, visible } from './words.ts';

/** Longest file name in a box, characters; the whole is its tooltip. */
const NAME_LENGTH = 48;

/** For `dot -Tsvg`. Ends with a newline. */
export function graphDot({ boxes, links }: GraphPicture): string {
  return [
    'digraph blocks {',
    '  node [shape=box, style=rounded, fontname="sans-serif", fontsize=11];',
    '  edge [fontname="sans-serif", fontsize=9];',
    ...boxes.map((box) => `  ${box.id} [${attributes(boxAttributes(box))}];`),
    ...links.map((link) => `  ${link.from} -> ${link.to} [${attributes(linkAttributes(link))}];`),
    '}',
    '',
  ].join('\n');
}

function boxAttributes(box: PictureBox): Record<string, string> {
  if (box.kind === 'user') return { label: titleOf(box), style: 'dashed' };
  const filename = visible(box.filename);
  const lines = [titleOf(box), shortened(filename, NAME_LENGTH), sizeLine(box), limitsLine(box), visible(box.name)];
  return { label: lines.filter((line) => line !== undefined).join('\n'), tooltip: filename };
}

function linkAttributes(link: PictureLink): Record<string, string> {
  const label = `${linkTitle(link)}\n${linkPermissions(link)}`;
  const style = link.role === 'cow' ? { style: 'dashed' } : {};
  return { label, ...style, ...(link.frozen ? { color: 'steelblue' } : {}) };
}

function attributes(values: Record<string, string>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name}=${quoted(value)}`)
    .join(', ');
}

/** Backslashes begin escapes in labels, also those that Graphviz replaces by names. */
function quoted(text: string): string {
  return `"${text.replace(/[\\"]/g, '\\$&').replaceAll('\n', '\\n')}"`;
}
