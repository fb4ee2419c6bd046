/** A graph as an SVG file that needs nothing beside it. */
import { type Layout, type LayoutBox, layered, type Pass, type Place } from './layout.ts';
import type { GraphPicture, PictureBox, PictureLink } from './model.ts';
import { LEGEND, limitsLine, linkPermissions, linkTitle, shortened, sizeLine, titleOf, visible } from './words.ts';

/** Longest texts in a box, characters; a title has the whole. */
const FILENAME_LENGTH = 38;
const TITLE_LENGTH = 24;
/** Estimated widths of a character, as shares of the font's size: letters of a sans-serif font vary. */
const SANS = 0.6;
const MONO = 0.61;
const MARGIN = 24;
const PADDING = 12;
const LINE = 17;
/** Room above a box for what its links say. */
const LABEL = { width: 178, height: 36 };
const GAPS = { across: 36, down: 78 };
const LEGEND_HEIGHT = 46;

const STYLE = `
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:#1f2933}
.driver{font-size:14px;font-weight:600}
.line{font-size:12px}
.quiet{font-size:11px;fill:#52606d}
.mono{font-family:ui-monospace,"SFMono-Regular",Menlo,"DejaVu Sans Mono",monospace;font-size:10.5px;fill:#52606d}
.link{fill:none;stroke:#7b8794;stroke-width:1.4}
.cow{stroke-dasharray:6 4}
.frozen{stroke:#2b6cb0;stroke-width:2}
.label{fill:#fff;fill-opacity:.92}
.box{stroke-width:1.4}
.user .box{fill:#f5f7fa;stroke:#9aa5b1;stroke-dasharray:5 4}
.format .box{fill:#e6f0fd;stroke:#3f78c3}
.filter .box{fill:#fdf2dc;stroke:#c5881a}
.protocol .box{fill:#e7f5ea;stroke:#43915a}
`.trim();

interface Line {
  readonly style: 'driver' | 'line' | 'quiet' | 'mono';
  readonly text: string;
}

interface Drawn extends LayoutBox {
  readonly box: PictureBox;
  readonly lines: readonly Line[];
}

/** Ends with a newline. Names of any content are safe in it, and long ones are shortened, with the whole as a tooltip. */
export function graphSvg(picture: GraphPicture): string {
  const drawn = picture.boxes.map((box) => drawnBox(box, picture.links.filter(({ to }) => to === box.id).length));
  const layout = layered(drawn, picture.links, GAPS);
  const legend = Math.ceil(textWidth({ style: 'quiet', text: LEGEND }));
  const width = Math.ceil(Math.max(layout.width, legend, 320) + 2 * MARGIN);
  const height = Math.ceil(layout.height + 2 * MARGIN + LEGEND_HEIGHT);
  const shift = Math.round((width - layout.width) / 2);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">`,
    '<title>Graph of block nodes</title>',
    `<style>${STYLE}</style>`,
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#7b8794"/></marker></defs>',
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<g transform="translate(${shift} ${MARGIN})">`,
    ...drawLinks(picture.links, drawn, layout),
    ...drawn.map((each) => drawBox(each, layout.places.get(each.id))),
    '</g>',
    drawLegend(width, height),
    '</svg>',
    '',
  ].join('\n');
}

function drawnBox(box: PictureBox, incoming: number): Drawn {
  const lines = linesOf(box);
  const text = Math.max(...lines.map(textWidth)) + 2 * PADDING;
  const ports = incoming * (LABEL.width + 8);
  const width = Math.round(Math.max(text, ports, 120));
  return { id: box.id, box, lines, width, height: lines.length * LINE + 2 * PADDING - 4 };
}

function linesOf(box: PictureBox): Line[] {
  const title = shortened(titleOf(box), box.kind === 'user' ? 2 * TITLE_LENGTH : TITLE_LENGTH);
  if (box.kind === 'user') return [{ style: 'line', text: title }];
  const limits = limitsLine(box);
  return [
    { style: 'driver', text: title },
    { style: 'line', text: shortened(visible(box.filename), FILENAME_LENGTH) },
    { style: 'line', text: sizeLine(box) },
    ...(limits === undefined ? [] : [{ style: 'quiet' as const, text: limits }]),
    { style: 'mono', text: visible(box.name) },
  ];
}

function textWidth({ style, text }: Line): number {
  const sizes = { driver: 14 * 1.06, line: 12, quiet: 11, mono: 10.5 };
  return [...text].length * sizes[style] * (style === 'mono' ? MONO : SANS);
}

function drawBox({ box, lines, width, height }: Drawn, place: Place | undefined): string {
  const { x, y } = place ?? { x: 0, y: 0 };
  const left = round(x - width / 2);
  const texts = lines.map(
    ({ style, text }, index) =>
      `<text class="${style}" x="${left + PADDING}" y="${round(y + PADDING + 10 + index * LINE)}">${escaped(text)}</text>`,
  );
  return [
    `<g class="${box.kind}">`,
    `<title>${escaped(tooltip(box))}</title>`,
    `<rect class="box" x="${left}" y="${round(y)}" width="${width}" height="${height}" rx="8"/>`,
    ...texts,
    '</g>',
  ].join('');
}

function tooltip(box: PictureBox): string {
  if (box.kind === 'user') return titleOf(box);
  const kind = box.implicit ? `internal ${box.kind}` : box.kind;
  return `${titleOf(box)} (${kind})\n${visible(box.filename)}\n${box.length} bytes\nnode ${visible(box.name)}`;
}

/** Where a link leaves and enters: each has its own place on the edge of its box, in the order of where it leads. */
function drawLinks(links: readonly PictureLink[], drawn: readonly Drawn[], { places, passes }: Layout): string[] {
  const boxes = new Map(drawn.map((each) => [each.id, each]));
  const xOf = (id: string) => places.get(id)?.x ?? 0;
  const port = (index: number, end: 'from' | 'to') => {
    const other = end === 'from' ? 'to' : 'from';
    const here = links[index]?.[end] ?? '';
    const near = (each: number) => {
      const way = passes[each] ?? [];
      const next = end === 'from' ? way.at(0) : way.at(-1);
      return next?.x ?? xOf(links[each]?.[other] ?? '');
    };
    const siblings = [...links.keys()].filter((each) => links[each]?.[end] === here).sort((a, b) => near(a) - near(b));
    const width = boxes.get(here)?.width ?? 0;
    return xOf(here) + width * ((siblings.indexOf(index) + 0.5) / siblings.length - 0.5);
  };
  const lines = links.map((link, index) => {
    const from = boxes.get(link.from);
    const start = { x: port(index, 'from'), y: (places.get(link.from)?.y ?? 0) + (from?.height ?? 0) };
    const end = { x: port(index, 'to'), y: (places.get(link.to)?.y ?? 0) - 2 };
    const style = `link${link.role === 'cow' ? ' cow' : ''}${link.frozen ? ' frozen' : ''}`;
    const path = curve(start, passes[index] ?? [], end);
    return { path: `<path class="${style}" d="${path}" marker-end="url(#tip)"/>`, label: drawLabel(link, end) };
  });
  return [...lines.map(({ path }) => path), ...lines.map(({ label }) => label)];
}

/** Down through all passes, the last bit straight, behind the label. */
function curve(start: Place, passes: readonly Pass[], end: Place): string {
  let path = `M${round(start.x)} ${round(start.y)}`;
  let before = start;
  for (const pass of [...passes, { x: end.x, y: end.y - LABEL.height - 6, bottom: end.y }]) {
    const middle = round((before.y + pass.y) / 2);
    path += `C${round(before.x)} ${middle} ${round(pass.x)} ${middle} ${round(pass.x)} ${round(pass.y)}V${round(pass.bottom)}`;
    before = { x: pass.x, y: pass.bottom };
  }
  return path;
}

function drawLabel(link: PictureLink, { x, y }: Place): string {
  const title = `${shortened(linkTitle(link), 28)}${link.frozen ? ', frozen' : ''}`;
  const permissions = linkPermissions(link);
  const width =
    Math.max(textWidth({ style: 'quiet', text: title }), textWidth({ style: 'mono', text: permissions })) + 8;
  const top = y - LABEL.height - 5;
  return [
    '<g>',
    `<title>${escaped(`${linkTitle(link)}\nneeds ${words(link.needs)}\nshares ${words(link.shares)}`)}</title>`,
    `<rect class="label" x="${round(x - width / 2)}" y="${round(top)}" width="${round(width)}" height="${LABEL.height - 4}" rx="4"/>`,
    `<text class="quiet" text-anchor="middle" x="${round(x)}" y="${round(top + 12)}">${escaped(title)}</text>`,
    `<text class="mono" text-anchor="middle" x="${round(x)}" y="${round(top + 26)}">${escaped(permissions)}</text>`,
    '</g>',
  ].join('');
}

function words(names: readonly string[]): string {
  return names.length === 0 ? 'nothing' : names.join(', ');
}

function drawLegend(width: number, height: number): string {
  const y = height - MARGIN - 14;
  const swatches = ['user', 'format', 'filter', 'protocol'].map((kind, index) => {
    const x = MARGIN + index * 78;
    return `<g class="${kind}"><rect class="box" x="${x}" y="${y - 9}" width="12" height="12" rx="3"/><text class="quiet" x="${x + 18}" y="${y + 1}">${kind}</text></g>`;
  });
  return [
    `<path d="M${MARGIN} ${y - 22}H${width - MARGIN}" stroke="#e4e7eb"/>`,
    ...swatches,
    `<text class="quiet" x="${MARGIN}" y="${y + 20}">${escaped(LEGEND)}</text>`,
  ].join('');
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/** As text or attribute. What XML 1.0 cannot hold was made visible before; a line feed stays. */
function escaped(text: string): string {
  return text
    .replace(/[^\n\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '\ufffd')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;');
}
