/** Which image is worked on, and how: `open`, `close`, `reopen` (T-OPEN-1, T-OPEN-2). */
import { cacheSettings } from '../../core/cache.ts';
import type { OptionTree, OptionValue } from '../../core/options.ts';
import { cacheMode } from '../command-line/arguments.ts';
import { Failure } from '../failure.ts';
import type { Call, IoCommand } from './command.ts';
import { refuse, wrongUsage } from './failure.ts';
import { ImageOptions, optionString } from './image-options.ts';
import type { Session } from './session.ts';

export const openCommand: IoCommand = {
  name: 'open',
  alias: 'o',
  min: 1,
  withoutImage: true,
  usage: '[-rsCnkU] [-t cache] [-d discard] [-o options] [path]',
  summary: 'open the file specified by path',
  letters: 'snCro:ki:t:d:U',
  details: `
 Opens an image, for all the other commands.

 Example:
 'open -o driver=raw disk.img' - opens it for reading and writing, without a guess at its format

 -r, -- for reading only
 -s, -- what is written goes to a temporary file, and is gone at the end
 -C, -- copy on read: what is read from images below is stored in this one
 -n, -- around the host's cache, as -t none
 -U, -- even though another program is writing to it
 -k, -- as -i native
 -i, -- threads, native or io_uring: accepted
 -t, -- cache mode: writeback, none, writethrough (default), directsync, unsafe
 -d, -- discards: unmap (default) or ignore
 -o, -- options of the driver, such as driver=vdi`,
  run: open,
};

function open(session: Session, call: Call): Promise<void> {
  const options = new ImageOptions();
  const { context, imageOpts } = session;
  let tree: OptionTree = {};
  const given = call.read({
    r: () => {
      options.readOnly = true;
    },
    s: () => {
      options.snapshot = true;
    },
    C: () => {
      options.copyOnRead = true;
    },
    U: () => {
      options.forceShare = true;
    },
    n: () => options.setCache('none'),
    k: () => options.setAio('native'),
    i: (value) => options.setAio(value),
    t: (value) => options.setCache(value),
    d: (value) => options.setDiscard(value),
    o(value) {
      if (imageOpts) refuse("--image-opts and 'open -o' are mutually exclusive");
      tree = { ...tree, ...optionString(context, value) };
    },
  });
  const [path, more] = given.operands;
  if (more !== undefined) wrongUsage();
  if (imageOpts && path !== undefined) tree = optionString(context, path);
  if (session.hasImage) throw new Failure("file open already, try 'help close'");
  const filename = imageOpts ? undefined : path;
  return session.open(options.source(filename, tree, filename));
}

export const closeCommand: IoCommand = {
  name: 'close',
  alias: 'c',
  min: 0,
  max: 0,
  summary: 'close the current open file',
  run: (session) => session.close(),
};

export const reopenCommand: IoCommand = {
  name: 'reopen',
  min: 0,
  usage: '[(-r|-w)] [-c cache] [-o options]',
  summary: 'reopens an image with new options',
  letters: 'c:o:rw',
  details: `
 Changes how the image is open. What is not named stays as it is.

 Example:
 'reopen -r' - for reading only from now on

 -r, -- for reading only
 -w, -- for reading and writing
 -c, -- cache mode: writeback, none, writethrough, directsync, unsafe
 -o, -- options of the driver that can change while it is open`,
  run: reopen,
};

async function reopen(session: Session, call: Call): Promise<void> {
  let readOnly: boolean | undefined;
  let cache: string | undefined;
  let tree: OptionTree = {};
  const setReadOnly = (value: boolean) => {
    if (readOnly !== undefined) throw new Failure('Only one -r/-w option may be given');
    readOnly = value;
  };
  const given = call.read({
    r: () => setReadOnly(true),
    w: () => setReadOnly(false),
    c(value) {
      cache = cacheMode('cache', value);
    },
    o(value) {
      tree = { ...tree, ...optionString(session.context, value) };
    },
  });
  if (given.operands.length > 0) wrongUsage();
  const options: Record<string, OptionValue> = { ...tree };
  if (readOnly !== undefined) {
    if (readOnly) await session.holdWritable(false);
    if (Object.hasOwn(tree, 'read-only')) throw new Failure("Cannot set both -r/-w and 'read-only'");
    options['read-only'] = readOnly;
  }
  const settings = cache === undefined ? undefined : cacheSettings(cache);
  if (settings !== undefined) {
    if (Object.hasOwn(tree, 'cache.direct') || Object.hasOwn(tree, 'cache.no-flush')) {
      throw new Failure('Cannot set both -c and the cache options');
    }
    options['cache.direct'] = settings.direct;
    options['cache.no-flush'] = settings.noFlush;
  }
  await session.graph.reopen([{ node: session.disk.node, options }]);
  if (settings !== undefined) session.disk.writeCache = settings.writeBack;
}
