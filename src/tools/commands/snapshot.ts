/** `snapshot`: moments of a disk that its image keeps (T-SNAP-1). */
import { constants } from 'node:os';
import type { Disk } from '../../core/disk.ts';
import { addContext, asBlockError, type BlockError, errorText } from '../../core/errors.ts';
import { type Command, type GivenOptions, readCommandLine } from '../command.ts';
import { FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, QUIET } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure, misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { snapshotLines } from '../output/snapshot-list.ts';

/** qemu-img cuts names at so many bytes. */
const NAME_MAX = 255;

export const snapshotCommand: Command = {
  name: 'snapshot',
  summary: 'Keep moments of a disk inside its image, and go back to them',
  usage: '[--object objectdef] [--image-opts] [-U] [-q] [-l | -a snapshot | -c snapshot | -d snapshot] filename',
  operands: 'FILENAME',
  description:
    'The image keeps each moment as a whole, in the same file; what was not changed since is stored once. An\ninterruption, even a power cut, leaves the image as it was before or as it is to be. Formats: qcow2.',
  options: [
    { ...FORMAT, beyond: true },
    { short: 'l', help: 'list the snapshots' },
    { short: 'c', argument: 'NAME', help: 'keep the disk as it is now' },
    { short: 'a', argument: 'SNAPSHOT', help: 'make the disk what it was then; what was written since is lost' },
    { short: 'd', argument: 'SNAPSHOT', help: 'delete a snapshot; the disk stays as it is' },
    QUIET,
    OBJECT,
    IMAGE_OPTS,
    FORCE_SHARE,
  ],
  examples: ['snapshot -c before-update disk.qcow2', 'snapshot -l disk.qcow2', 'snapshot -a before-update disk.qcow2'],
  run,
};

const ACTIONS = ['l', 'a', 'c', 'd'] as const;

async function run(context: Context): Promise<number> {
  let actions = 0;
  const count = () => {
    if (++actions > 1) throw misuse("Cannot mix '-l', '-a', '-c', '-d'");
  };
  const given = readCommandLine(context, snapshotCommand, { l: count, a: count, c: count, d: count });
  const { filename } = given;
  const action = ACTIONS.find((each) => given.has(each));
  // qemu-img then opens the image, and that is all.
  if (action === undefined && !context.dialect.qemu) throw misuse('Need one of -l, -c, -a or -d');
  const request = { ...imageRequest(context, given, filename, 'format'), writable: action !== 'l' };
  const disk = await openImage(newGraph(context), request);
  await withDisks([disk], async () => {
    if (action === 'l') for (const line of snapshotLines(disk.snapshots.known())) context.out.line(line);
    else if (action !== undefined) await CHANGES[action](context, disk, textOf(given, action));
  });
  return 0;
}

function textOf(given: GivenOptions, action: string): string {
  return given.text(action) ?? '';
}

const CHANGES = { a: apply, c: create, d: remove } as const;

async function create({ dialect, signal }: Context, disk: Disk, name: string): Promise<void> {
  const cut = Buffer.from(name).subarray(0, NAME_MAX).toString();
  try {
    // qemu-img tells of no instructions as of 0.
    if (dialect.qemu) await disk.snapshots.create(cut, { instructionCount: 0n, signal });
    else await disk.snapshots.create(name, { signal });
  } catch (error) {
    if (!dialect.qemu) throw addContext(`Could not create snapshot '${name}'`, error);
    const { code } = asBlockError(error);
    const numbers: Readonly<Record<string, number>> = constants.errno;
    throw new Failure(`Could not create snapshot '${cut}': -${numbers[code]} (${errorText(code)})`, { cause: error });
  }
}

async function apply({ messages, signal }: Context, disk: Disk, name: string): Promise<void> {
  try {
    await disk.snapshots.apply(name, { signal });
  } catch (thrown) {
    const error = asBlockError(thrown);
    const what = `Could not apply snapshot '${name}'`;
    if (isWhole(error)) throw addContext(what, error);
    // What the format has to say comes first.
    if (error.message !== errorText(error.code)) messages.error(error.message, error.hint);
    throw new Failure(`${what}: Failed to load snapshot: ${errorText(error.code)}`, { cause: error });
  }
}

/** Texts that stand behind the snapshot's name as they are. */
function isWhole({ message }: BlockError): boolean {
  return /^(Failed to load snapshot: |Block driver does not support|Device has active dirty bitmaps)/.test(message);
}

async function remove({ dialect, signal }: Context, disk: Disk, name: string): Promise<void> {
  const what = `Could not delete snapshot '${name}'`;
  const known = disk.snapshots.known();
  // By name only, in qemu-img.
  const found = known.find((each) => each.name === name) ?? (dialect.qemu ? undefined : disk.snapshots.find(name));
  if (found === undefined) throw new Failure(`${what}: snapshot not found`);
  try {
    await disk.snapshots.delete({ id: found.id, name: found.name }, { signal });
  } catch (error) {
    throw addContext(what, error);
  }
}
