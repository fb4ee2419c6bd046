/** `io`: a shell of requests, for looking into images and trying what they do. */
import { type Command, readCommandLine } from '../command.ts';
import type { Context } from '../context.ts';
import { misuse } from '../failure.ts';
import { IO_OPTIONS, IoOptions } from '../io/options.ts';
import { runIo } from '../io/run.ts';

export const ioCommand: Command = {
  name: 'io',
  summary: 'Read and write an image by commands, typed or given',
  usage: '[--object objectdef] [--image-opts] [-f fmt] [-rsnCU] [-t cache] [-d discard] [-c command]... [filename]',
  operands: '[FILENAME]',
  description: `The commands are those of qemu-io, and two more: 'fault' changes what blkdebug does while the image is open, 'mark'
puts a name into a log of writes. 'help' lists them, 'help COMMAND' tells more. A command that fails makes the exit
status 1; the others still run.`,
  options: IO_OPTIONS,
  examples: [
    'io disk.vdi',
    "io -r -c 'read -v 0 512' -c map disk.vdi",
    "io -c 'fault add pwritev errno=ENOSPC once' -c 'write 0 4k' blkdebug::disk.vdi",
  ],
  run,
};

async function run(context: Context): Promise<number> {
  const options = new IoOptions(context);
  // The reader of command lines adds objects itself.
  const { object: _object, ...handlers } = options.handlers;
  const { operands } = readCommandLine(context, ioCommand, handlers);
  const [filename, more] = operands;
  if (more !== undefined) throw misuse('Expecting one image file name');
  return runIo(context, options.request(filename));
}
