/** `info`: what is known about an image, without reading its content. */
import { type Command, readCommandLine } from '../command.ts';
import { outputForm } from '../command-line/arguments.ts';
import { FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, OUTPUT } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { imageInfo, infoJson, infoLines } from '../output/image-info.ts';
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
  const disk = await openImage(newGraph(context), { ...imageRequest(context, given, filename, 'format'), noIO: true });
  await withDisks([disk], async () => {
    const info = imageInfo(disk.node);
    if (form === 'human') {
      context.out.write(
        infoLines(info)
          .map((line) => `${line}\n`)
          .join(''),
      );
    } else {
      context.out.line(jsonText(given.has('backing-chain') ? [infoJson(info)] : infoJson(info)));
    }
  });
  return 0;
}
