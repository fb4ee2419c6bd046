import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { chainWorld, KIB, MIB, makeChain, open } from '../../../tests/support/chains.ts';
import { createImage } from '../../core/create.ts';
import { graphDot } from './dot.ts';
import { type LayoutBox, layered } from './layout.ts';
import { type GraphPicture, graphPicture, type PictureNode } from './model.ts';
import { graphSvg } from './svg.ts';
import { graphTree } from './tree.ts';
import { permissionLetters, shortened, visible } from './words.ts';

const HOSTILE = '/<b onload="x">&amp;\u202egnp.\u0007\u001b[31m"\\N\\"\n\ud800 and so on and on and on and on.img';

async function chainPicture(): Promise<GraphPicture> {
  const { graph } = chainWorld();
  await makeChain(graph, { size: MIB }, { size: 2 * MIB });
  const disk = await open(graph, '/1.img');
  try {
    return graphPicture(graph, disk.node);
  } finally {
    await disk.close();
  }
}

/** Node names have random digits. */
function withoutNames(text: string): string {
  return text.replace(/#block\d+/g, '#block');
}

async function hostilePicture(): Promise<GraphPicture> {
  const { graph } = chainWorld();
  await createImage(graph, { filename: HOSTILE, format: 'qcow2', size: 64 * KIB });
  const disk = await open(graph, HOSTILE);
  const picture = graphPicture(graph);
  await disk.close();
  return picture;
}

describe('graphPicture', () => {
  test('has users, nodes from the top, and links with what they need and share', async () => {
    const { boxes, links } = await chainPicture();
    expect(boxes.map((box) => (box.kind === 'user' ? box.description : `${box.driver} ${box.filename}`))).toEqual([
      'an unnamed block device',
      'qcow2 /1.img',
      'raw /base.raw',
      'file /1.img',
      'file /base.raw',
    ]);
    expect(boxes[1]).toMatchObject({ kind: 'format', length: 2 * MIB, writable: true, implicit: false });
    expect((boxes[1] as PictureNode).limits).toEqual({ requestAlign: 1, transferMax: undefined, preferred: 64 * KIB });
    expect((boxes[2] as PictureNode).writable).toBe(false);
    const root = links.find(({ role }) => role === 'root');
    expect(root).toMatchObject({
      from: 'u0',
      needs: ['consistent read', 'write'],
      shares: ['consistent read', 'write unchanged'],
    });
    expect(links.find(({ role }) => role === 'cow')).toMatchObject({
      name: 'backing',
      needs: ['consistent read'],
      frozen: false,
    });
    expect(links.length).toBe(4);
  });

  test('of a node leaves out what is not below it; of the graph has all', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, { size: MIB }, { size: 2 * MIB });
    const disk = await open(graph, '/1.img');
    const base = disk.node.backing?.node;
    expect(graphPicture(graph, base).boxes.map(({ id }) => id).length).toBe(2);
    expect(graphPicture(graph).boxes.length).toBe(5);
    await disk.close();
    expect(graphPicture(graph)).toEqual({ boxes: [], links: [] });
  });
});

describe('pictures', () => {
  test('as a tree', async () => {
    expect(withoutNames(graphTree(await chainPicture()))).toBe(`an unnamed block device
\`-- root: qcow2 /1.img [#block]
    |   2 MiB, 196 KiB in use, writable
    |   requests best 64 KiB
    |   needs cw--, shares c-u-
    |-- backing: raw /base.raw [#block]
    |   |   1 MiB, 0 B in use, read-only
    |   |   needs c---, shares c-u-
    |   \`-- file (filtered): file /base.raw [#block]
    |           1 MiB, 0 B in use, read-only
    |           needs c---, shares c-u-
    \`-- file (image): file /1.img [#block]
            192 KiB, 196 KiB in use, writable
            needs cw-r, shares c-u-

c consistent read, w write, u write unchanged, r resize
`);
  });

  test('as a tree: a node with several users is shown once', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, { size: MIB });
    const disk = await graph.open('/base.raw', { format: 'raw' });
    const again = await graph.openReference(disk.nodeName);
    const text = withoutNames(graphTree(graphPicture(graph)));
    expect(text.match(/ \(above\)/g)?.length).toBe(1);
    expect(text.match(/in use/g)?.length).toBe(2);
    await again.close();
    await disk.close();
  });

  test('for Graphviz', async () => {
    expect(withoutNames(graphDot(await chainPicture()))).toMatchInlineSnapshot(`
      "digraph blocks {
        node [shape=box, style=rounded, fontname="sans-serif", fontsize=11];
        edge [fontname="sans-serif", fontsize=9];
        u0 [label="an unnamed block device", style="dashed"];
        n0 [label="qcow2\\n/1.img\\n2 MiB, 196 KiB in use, writable\\nrequests best 64 KiB\\n#block", tooltip="/1.img"];
        n1 [label="raw\\n/base.raw\\n1 MiB, 0 B in use, read-only\\n#block", tooltip="/base.raw"];
        n2 [label="file\\n/1.img\\n192 KiB, 196 KiB in use, writable\\n#block", tooltip="/1.img"];
        n3 [label="file\\n/base.raw\\n1 MiB, 0 B in use, read-only\\n#block", tooltip="/base.raw"];
        u0 -> n0 [label="root\\nneeds cw--, shares c-u-"];
        n0 -> n1 [label="backing\\nneeds c---, shares c-u-", style="dashed"];
        n0 -> n2 [label="file (image)\\nneeds cw-r, shares c-u-"];
        n1 -> n3 [label="file (filtered)\\nneeds c---, shares c-u-"];
      }
      "
    `);
  });

  test('as SVG: well-formed, self-contained, with a title for each box and link', async () => {
    const svg = graphSvg(await chainPicture());
    expect(wellFormed(svg)).toBe(true);
    expect(svg.match(/<title>/g)?.length).toBe(1 + 5 + 4);
    expect(svg).not.toMatch(/href|url\((?!#tip)|<script|<foreignObject/);
    expect(svg).toContain('<title>backing\nneeds consistent read\nshares consistent read, write unchanged</title>');
  });

  test('a hostile name stays text in all of them', async () => {
    const picture = await hostilePicture();
    const svg = graphSvg(picture);
    expect(wellFormed(svg)).toBe(true);
    expect(svg).not.toContain('<b onload');
    expect(svg).toContain('/&lt;b onload=&quot;x&quot;');
    // Shortened where it is shown, whole in the title.
    expect(svg).toMatch(/>\/&lt;b onload=[^<]*…[^<]*on\.img</);
    const texts = [svg, graphTree(picture), graphDot(picture)];
    for (const text of texts) expect(text).not.toMatch(/(?!\n)\p{Cc}|[\u202a-\u202e]|\p{Surrogate}/u);
    for (const line of graphTree(picture).split('\n')) expect(line).not.toMatch(/^"/);
    // A quote ends no string: outside of strings there is only what Graphviz knows.
    expect(graphDot(picture).replace(/"(?:[^"\\]|\\.)*"/g, '""')).not.toMatch(/onload|gnp/);
  });

  test('of nothing', () => {
    const nothing = { boxes: [], links: [] };
    expect(wellFormed(graphSvg(nothing))).toBe(true);
    expect(graphTree(nothing)).toContain('consistent read');
    expect(graphDot(nothing)).toMatch(/^digraph/);
  });
});

/** Tags are closed in order, and text holds no stray markup. */
function wellFormed(xml: string): boolean {
  const open: string[] = [];
  let at = 0;
  for (const match of xml.matchAll(/<(\/?)([a-z]+)((?: [a-zA-Z-]+="[^"<&]*(?:&[a-z0-9#]+;[^"<&]*)*")*)(\/?)>/g)) {
    if (!isText(xml.slice(at, match.index))) return false;
    at = match.index + match[0].length;
    const [, closes, name = '', , alone] = match;
    if (closes === '/' && open.pop() !== name) return false;
    if (closes === '' && alone === '') open.push(name);
  }
  return open.length === 0 && xml.slice(at).trim() === '';
}

function isText(text: string): boolean {
  return !text.replace(/&(amp|lt|gt|quot|#39);/g, '').match(/[<&]/);
}

describe('words', () => {
  test('letters of permissions, in the order of their bits', () => {
    expect([permissionLetters([]), permissionLetters(['resize', 'consistent read'])]).toEqual(['----', 'c--r']);
  });

  test('long names keep both ends, and no character is cut in two', () => {
    expect(shortened('abcdefghij', 10)).toBe('abcdefghij');
    expect(shortened('abcdefghijk', 7)).toBe('ab…hijk');
    expect(shortened('😀'.repeat(9), 4)).toBe('😀…😀😀');
  });

  test('what cannot be seen is spelled out', () => {
    expect(visible('a\u0007\n\u202eb\u2028')).toBe('a\\u{7}\\u{a}\\u{202e}b\\u{2028}');
  });
});

describe('layered', () => {
  /** Links lead from a box to one of a higher number. */
  const graphs = fc.integer({ min: 1, max: 14 }).chain((count) => {
    const box = fc.record({ width: fc.integer({ min: 10, max: 300 }), height: fc.integer({ min: 10, max: 90 }) });
    const pair = fc.tuple(fc.nat(count - 1), fc.nat(count - 1)).filter(([from, to]) => from < to);
    return fc.record({
      boxes: fc.array(box, { minLength: count, maxLength: count }),
      links: fc.array(pair, { maxLength: count === 1 ? 0 : 20 }),
    });
  });

  test('no two boxes overlap, children are below, links pass beside boxes, and all is inside', () => {
    fc.assert(
      fc.property(graphs, (given) => {
        const boxes: LayoutBox[] = given.boxes.map((box, index) => ({ id: `b${index}`, ...box }));
        const links = given.links.map(([from, to]) => ({ from: `b${from}`, to: `b${to}` }));
        const { places, passes, width, height } = layered(boxes, links, { across: 20, down: 50 });
        const areas = boxes.map(({ id, width: w, height: h }) => {
          const { x, y } = places.get(id) ?? { x: Number.NaN, y: Number.NaN };
          return { id, left: x - w / 2, right: x + w / 2, top: y, bottom: y + h };
        });
        for (const a of areas) {
          expect(a.left >= -0.01 && a.right <= width + 0.01 && a.top >= 0 && a.bottom <= height + 0.01).toBe(true);
          for (const b of areas) {
            if (a === b) continue;
            const apart =
              a.right <= b.left + 0.01 || b.right <= a.left + 0.01 || a.bottom <= b.top || b.bottom <= a.top;
            expect(apart).toBe(true);
          }
          for (const { x, y } of passes.flat()) {
            const inside = y >= a.top && y < a.bottom && x > a.left && x < a.right;
            expect(inside).toBe(false);
          }
        }
        for (const { from, to } of links) {
          const [upper, lower] = [from, to].map((id) => areas.find((area) => area.id === id));
          expect((lower?.top ?? 0) >= (upper?.bottom ?? 0) + 50 - 0.01).toBe(true);
        }
      }),
    );
  });
});
