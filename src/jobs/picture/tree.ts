/** A graph as an indented text, for terminals. */
import type { GraphPicture, PictureBox, PictureLink } from './model.ts';
import { LEGEND, limitsLine, linkPermissions, linkTitle, sizeLine, titleOf, visible } from './words.ts';

/** Each user with all that it uses; a node that was shown before is only named. Ends with a newline. */
export function graphTree({ boxes, links }: GraphPicture): string {
  const lines: string[] = [];
  const shown = new Set<string>();
  const byId = new Map(boxes.map((box) => [box.id, box]));
  const put = (box: PictureBox, link: PictureLink | undefined, first: string, rest: string) => {
    const known = shown.has(box.id);
    shown.add(box.id);
    lines.push(first + head(box, link) + (known ? ' (above)' : ''));
    if (known && link === undefined) return;
    const below = known ? [] : links.filter(({ from }) => from === box.id);
    const bar = below.length > 0 ? '|   ' : '    ';
    for (const line of details(box, link, known)) lines.push(`${rest}${bar}${line}`);
    for (const [index, next] of below.entries()) {
      const child = byId.get(next.to);
      if (child === undefined) continue;
      const last = index === below.length - 1;
      put(child, next, `${rest}${last ? '`-- ' : '|-- '}`, `${rest}${last ? '    ' : '|   '}`);
    }
  };
  const used = new Set(links.map(({ to }) => to));
  for (const box of boxes) if (!used.has(box.id)) put(box, undefined, '', '');
  return `${[...lines, '', LEGEND].join('\n')}\n`;
}

function head(box: PictureBox, link: PictureLink | undefined): string {
  const role = link === undefined ? '' : `${linkTitle(link)}: `;
  if (box.kind === 'user') return role + titleOf(box);
  return `${role}${titleOf(box)} ${visible(box.filename)} [${visible(box.name)}]`;
}

function details(box: PictureBox, link: PictureLink | undefined, known: boolean): string[] {
  const own = box.kind === 'user' || known ? [] : [sizeLine(box), limitsLine(box)];
  const permissions = link && linkPermissions(link) + (link.frozen ? ', frozen' : '');
  return [...own, permissions].filter((line) => line !== undefined);
}
