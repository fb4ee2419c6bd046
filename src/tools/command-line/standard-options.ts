/** Options that several commands share, so that they read the same everywhere. */
import type { OptionSpec } from './getopt.ts';

export const FORMAT: OptionSpec = {
  short: 'f',
  long: 'format',
  argument: 'FMT',
  help: "the image's format; default: probed",
};
/** The same for the commands where it has no long name in qemu-img. */
export const SHORT_FORMAT: OptionSpec = { short: 'f', argument: 'FMT', help: "the source's format; default: probed" };
export const OBJECT: OptionSpec = {
  long: 'object',
  argument: 'OBJECT',
  help: 'a secret for the images, e.g. secret,id=s0,file=key.txt; may be given several times',
};
export const IMAGE_OPTS: OptionSpec = {
  long: 'image-opts',
  help: 'image names are option strings, e.g. driver=vdi,file.filename=disk.vdi',
};
export const FORCE_SHARE: OptionSpec = {
  short: 'U',
  long: 'force-share',
  help: 'open the image even though another program is writing to it',
};
export const OUTPUT: OptionSpec = { long: 'output', argument: 'FORM', help: 'human or json' };
export const JSON_OUTPUT: OptionSpec = { long: 'json', help: 'the same as --output=json' };
export const QUIET: OptionSpec = { short: 'q', help: 'print errors only' };
export const PROGRESS: OptionSpec = { short: 'p', help: 'show progress on standard output' };
export const PROGRESS_MODE: OptionSpec = {
  long: 'progress',
  argument: 'MODE',
  help: 'progress on standard error: bar (default on a terminal), json (one object a line), none',
  beyond: true,
};
export const SOURCE_CACHE: OptionSpec = {
  short: 'T',
  argument: 'CACHE',
  help: 'cache mode of the sources: writeback (default), none, directsync, writethrough, unsafe',
};
