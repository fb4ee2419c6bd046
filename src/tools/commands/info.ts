/** `info`: what is known about an image, without reading its content. */
import { type Command, readCommandLine } from '../command.ts';
import { checkFormatOrOptions, outputForm } from '../command-line/arguments.ts';
import { ObjectList } from '../command-line/objects.ts';
import { FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, OUTPUT } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { openImage, withDisks } from '../open-image.ts';
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
    'info -f raw --image-opts driver=raw,offset=1M,file.filename=disk.img',
  ],
  run,
};

async function run(context: Context): Promise<number> {
  let format: string | undefined;
  let output: string | undefined;
  let chain = false;
  let imageOpts = false;
  let forceShare = false;
  const objects = new ObjectList();
  const operands = readCommandLine(context, infoCommand, {
    format: (value) => {
      format = value;
    },
    output: (value) => {
      output = value;
    },
    'backing-chain': () => {
      chain = true;
    },
    object: (value) => objects.add(value),
    'image-opts': () => {
      imageOpts = true;
    },
    'force-share': () => {
      forceShare = true;
    },
  });
  const [name] = operands;
  if (name === undefined || operands.length !== 1) throw misuse('Expecting one image file name');
  const form = outputForm(output);
  checkFormatOrOptions(imageOpts, format !== undefined);
  const disk = await openImage(newGraph(context), { name, imageOpts, format, forceShare, noIO: true });
  await withDisks([disk], async () => {
    const info = imageInfo(disk.node, context.dialect);
    if (form === 'human')
      context.out.write(
        infoLines(info)
          .map((line) => `${line}\n`)
          .join(''),
      );
    else context.out.line(jsonText(chain ? [infoJson(info)] : infoJson(info)));
  });
  return 0;
}
