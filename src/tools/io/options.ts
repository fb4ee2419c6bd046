/** The command line of the shell, declared once for both dialects (T-IO-1). */
import type { OptionSpec } from '../command-line/getopt.ts';
import { FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { ImageOptions } from './image-options.ts';
import type { IoRequest } from './run.ts';

export const IO_OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  {
    short: 'c',
    long: 'cmd',
    argument: 'COMMAND',
    help: 'run this instead of what is typed; may be given several times',
  },
  FORMAT,
  { short: 'r', long: 'read-only', help: 'open for reading only' },
  { short: 's', long: 'snapshot', help: 'what is written goes to a temporary file, and is gone at the end' },
  { short: 'n', long: 'nocache', help: "around the host's cache, as -t none" },
  { short: 'C', long: 'copy-on-read', help: 'what is read from images below is stored in this one' },
  { short: 'm', long: 'misalign', help: 'accepted: buffers are as they come' },
  { short: 'k', long: 'native-aio', help: 'as --aio=native' },
  { short: 'i', long: 'aio', argument: 'MODE', help: 'threads, native or io_uring: accepted' },
  {
    short: 't',
    long: 'cache',
    argument: 'CACHE',
    help: 'cache mode: writethrough (default), writeback, none, directsync, unsafe',
  },
  { short: 'd', long: 'discard', argument: 'MODE', help: 'discards: unmap (default) or ignore' },
  FORCE_SHARE,
];

/** Gathers what the command line says, option by option, as each is read. */
export class IoOptions {
  readonly image = new ImageOptions();
  readonly commands: string[] = [];
  #imageOpts = false;
  readonly #context: Context;

  constructor(context: Context) {
    this.#context = context;
  }

  /** By the options' long names. Handlers throw Failure and HelpRequest. */
  readonly handlers: Readonly<Record<string, (value: string) => void>> = {
    object: (value) => this.#context.objects.add(value),
    'image-opts': () => {
      this.#imageOpts = true;
    },
    cmd: (value) => {
      this.commands.push(value);
    },
    format: (value) => {
      this.image.format = value;
    },
    'read-only': () => {
      this.image.readOnly = true;
    },
    snapshot: () => {
      this.image.snapshot = true;
    },
    nocache: () => this.image.setCache('none'),
    'copy-on-read': () => {
      this.image.copyOnRead = true;
    },
    'native-aio': () => this.image.setAio('native'),
    aio: (value) => this.image.setAio(value),
    cache: (value) => this.image.setCache(value),
    discard: (value) => this.image.setDiscard(value),
    'force-share': () => {
      this.image.forceShare = true;
    },
  };

  request(filename: string | undefined): IoRequest {
    return { image: this.image, imageOpts: this.#imageOpts, commands: this.commands, filename };
  }
}
