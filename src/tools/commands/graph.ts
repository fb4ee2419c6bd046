/** `graph`: the nodes of an opened image as a tree or a picture. */
import { graphDot } from '../../jobs/picture/dot.ts';
import { type GraphPicture, graphPicture } from '../../jobs/picture/model.ts';
import { graphSvg } from '../../jobs/picture/svg.ts';
import { graphTree } from '../../jobs/picture/tree.ts';
import { type Command, readCommandLine } from '../command.ts';
import { FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { jsonText } from '../output/json.ts';

const FORMS: Readonly<Record<string, (picture: GraphPicture) => string>> = {
  human: graphTree,
  tree: graphTree,
  json: ({ boxes, links }) => `${jsonText({ boxes: boxes.map(members), links: links.map(members) })}\n`,
  dot: graphDot,
  svg: graphSvg,
};

export const graphCommand: Command = {
  name: 'graph',
  summary: 'Show what an image is made of: its nodes, their files, and the permissions between them',
  usage: '[--object objectdef] [--image-opts] [-f fmt] [-w] [--output=ofmt] [-U] filename',
  operands: 'FILENAME',
  description:
    "Each node is shown with its driver, file, sizes and limits on requests, each link with what the user above needs of\nthe node below, and what it shares with the node's other users.",
  options: [
    FORMAT,
    { long: 'output', argument: 'FORM', help: 'tree (default), json, dot (for Graphviz) or svg (a picture)' },
    { short: 'w', long: 'writable', help: 'as it is when it is open for writing; nothing is written' },
    OBJECT,
    IMAGE_OPTS,
    FORCE_SHARE,
  ],
  examples: [
    'graph overlay.vdi',
    'graph --output=svg overlay.vdi > graph.svg',
    'graph -w --image-opts driver=vdi,file.filename=disk.vdi',
  ],
  run,
};

async function run(context: Context): Promise<number> {
  let draw = graphTree;
  const given = readCommandLine(context, graphCommand, {
    output: (value) => {
      const form = Object.hasOwn(FORMS, value) ? FORMS[value] : undefined;
      if (form === undefined) throw new Failure('--output must be used with tree, json, dot or svg as argument.');
      draw = form;
    },
  });
  const { filename } = given;
  const request = { ...imageRequest(context, given, filename, 'format'), writable: given.has('writable') };
  const disk = await openImage(newGraph(context), request);
  await withDisks([disk], async () => context.out.write(draw(graphPicture(disk.graph, disk.node))));
  return 0;
}

/** Plain members, for printing. */
function members(value: object) {
  return Object.fromEntries(Object.entries(value));
}
