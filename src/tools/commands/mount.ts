/** `mount`: an image as a file in a folder, by nbdfuse on a server of our own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, extname, join, resolve } from 'node:path';
import type { Disk } from '../../core/disk.ts';
import type { Host } from '../../core/host.ts';
import { type Command, type GivenOptions, readCommandLine } from '../command.ts';
import { FORMAT, IMAGE_OPTS, OBJECT } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure, mayBeLost, misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { type Mounted, requireFuse, startFuse } from '../mount/nbdfuse.ts';
import { runServer } from '../nbd/run-server.ts';
import { imageRequest } from '../open-image.ts';
import { LOAD_SNAPSHOT, openAtSnapshot } from '../snapshots.ts';

export const mountCommand: Command = {
  name: 'mount',
  summary: 'Show an image as a raw file in a folder, through nbdfuse',
  usage:
    '[--object objectdef] [--image-opts] [-f fmt] [-r] [-l snapshot] [-o options] [--name name] [--snapshot] filename directory',
  operands: 'FILENAME DIRECTORY',
  description: `Prints the name of the file when it can be used, and serves it until it is unmounted (fusermount3 -u DIRECTORY) or
this command is interrupted, which unmounts it too. Needs nbdfuse and FUSE; only the user who mounts it can use it,
unless -o allow_other says otherwise.`,
  options: [
    FORMAT,
    { short: 'r', long: 'read-only', help: 'the file may only be read' },
    LOAD_SNAPSHOT,
    { short: 'o', argument: 'OPTIONS', help: 'options of FUSE, e.g. allow_other; may be repeated' },
    { long: 'name', argument: 'NAME', help: "the file's name; default: the image's, ending in .raw" },
    { long: 'snapshot', help: 'keep what is written in a temporary overlay, and drop it at the end' },
    OBJECT,
    IMAGE_OPTS,
  ],
  examples: ['mount disk.vdi mnt', 'mount -r -o allow_other nbd://server/export mnt'],
  run,
};

async function run(context: Context): Promise<number> {
  const options: string[] = [];
  const given = readCommandLine(context, mountCommand, { o: (value) => void options.push(value) });
  const [image, folder, ...rest] = given.operands;
  if (image === undefined || folder === undefined || rest.length > 0) {
    throw misuse('Expecting an image file name and a folder');
  }
  const name = nameOf(given, image);
  requireFuse(folder);
  const readOnly = given.has('read-only') || given.has('load-snapshot');
  const graph = newGraph(context, { busy: true });
  const { signal } = context;
  const request = { ...imageRequest(context, given, image, 'format'), snapshot: given.has('snapshot'), signal };
  const disk = await openAtSnapshot(context, graph, given, { ...request, writable: !readOnly });
  const place = { folder: resolve(folder), name, readOnly, options };
  try {
    await serveMounted(context, graph.host, disk, place);
  } catch (error) {
    await disk.close().catch(() => {});
    throw error;
  }
  await disk.close().catch((error: unknown) => {
    throw mayBeLost(error);
  });
  return 0;
}

function nameOf(given: GivenOptions, image: string): string {
  const name = given.text('name');
  if (name !== undefined) {
    if (name === '' || name.includes('/')) throw new Failure(`'${name}' is no name for a file`);
    return name;
  }
  // Of a URI, what comes before its query; of an option string, nothing that would do.
  const base = given.has('image-opts') ? '' : basename(image.replace(/\?.*$/, ''));
  const stem = base.slice(0, base.length - extname(base).length).replaceAll(/[^\w.-]/g, '_');
  return `${stem.replace(/^\.+/, '') || 'disk'}.raw`;
}

interface Place {
  readonly folder: string;
  readonly name: string;
  readonly readOnly: boolean;
  readonly options: readonly string[];
}

/** Until it is unmounted; an interrupt unmounts it. */
async function serveMounted(context: Context, host: Host, disk: Disk, place: Place): Promise<void> {
  const { signal, out, messages } = context;
  // Nobody else can reach the socket in it.
  const own = mkdtempSync(join(tmpdir(), 'diskwright-mount-'));
  const stop = new AbortController();
  let mounted: Promise<void> | undefined;
  const unmount = (fuse: Mounted) =>
    fuse.unmount(() => messages.warning(`'${place.folder}' is in use: it goes when nobody uses it any more`));
  const follow = async (fuse: Mounted) => {
    await fuse.ready;
    out.line(join(place.folder, place.name));
    out.flush();
    const interrupted = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
    await Promise.race([fuse.over, interrupted.then(() => unmount(fuse))]);
    await fuse.over;
  };
  try {
    await runServer({
      host,
      exports: [{ disk, options: { readOnly: place.readOnly } }],
      server: { maxConnections: 0 },
      address: { kind: 'unix', path: join(own, 'nbd.sock') },
      persistent: true,
      messages,
      signal: stop.signal,
      ready(uriOf) {
        const fuse = startFuse({ ...place, uri: uriOf(''), pidFile: join(own, 'pid') });
        mounted = follow(fuse).finally(() => stop.abort());
        mounted.catch(() => {});
      },
    });
    await mounted;
  } finally {
    rmSync(own, { recursive: true, force: true });
  }
}
