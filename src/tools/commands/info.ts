/** `info`: what is known about an image, without reading its content. */

import { ALONE, eachImage } from '../../jobs/backing-chain.ts';
import { type Command, readCommandLine } from '../command.ts';
import { outputForm } from '../command-line/arguments.ts';
import { FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, OUTPUT } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { type ImageInfo, imageInfo, infoJson, infoLines } from '../output/image-info.ts';
import { jsonText } from '../output/json.ts';

export const infoCommand: Command = {
  name: 'info',
  summary: 'Tell format, sizes and other facts about an image',
  usage: '[--object objectdef] [--image-opts] [-f fmt] [--output=ofmt] [--backing-chain] [-U] filename',
  operands: 'FILENAME',
  options: [
    FORMAT,
    OUTPUT,
    { long: 'backing-chain', help: 'tell about the image and all images below it' },
    OBJECT,
    IMAGE_OPTS,
    FORCE_SHARE,
  ],
  examples: [
    'info disk.vdi',
    'info --output=json disk.vdi',
    'info --image-opts driver=raw,offset=1M,file.filename=disk.img',
  ],
  run,
};

async function run(context: Context): Promise<number> {
  const given = readCommandLine(context, infoCommand);
  const { filename } = given;
  const form = outputForm(given.text('output'));
  const disk = await openImage(newGraph(context), { ...imageRequest(context, given, filename, 'format'), ...ALONE });
  const images: ImageInfo[] = [];
  const forceShare = given.has('force-share');
  await withDisks([disk], async () => {
    if (!given.has('backing-chain')) images.push(imageInfo(disk.node));
    else await eachImage(disk, filename, { forceShare }, (each) => images.push(imageInfo(each.node)));
  });
  const [top] = images;
  // Failures come first: nothing is told of a chain that is broken (T-INFO-5).
  if (form === 'human') context.out.write(images.map(paragraph).join('\n'));
  else if (top !== undefined)
    context.out.line(jsonText(given.has('backing-chain') ? images.map(infoJson) : infoJson(top)));
  return 0;
}

function paragraph(info: ImageInfo): string {
  return infoLines(info)
    .map((line) => `${line}\n`)
    .join('');
}
