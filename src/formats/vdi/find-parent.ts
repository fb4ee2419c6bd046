/** Finding the parent of a differencing image (V-50): images name it by UUID only, so files near them are looked at. */
import { formatUuid } from '../../bytes/uuid.ts';
import { combineNames, resolveBackingName } from '../../core/backing-name.ts';
import type { BackingReference } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { jsonNameOptions, protocolPrefix, stripPrefix } from '../../core/filename.ts';
import type { Host, HostContext } from '../../core/host.ts';
import { decodeHeader, HEADER_BYTES, SIGNATURE, type VdiHeader } from './header.ts';
import { sameUuid } from './lineage.ts';

/** Files whose headers are read in one folder, at most. */
const FILES_MAX = 2000;
/** Folders that are looked into, at most. */
const FOLDERS_MAX = 32;

export interface Search {
  readonly host: Host;
  readonly context: HostContext | undefined;
  /** Name of the image's own file, as it is shown. */
  readonly filename: string;
  readonly header: VdiHeader;
  /** Names of further folders, as seen from the image's; with colons between them. */
  readonly folders: string;
  readonly signal: AbortSignal | undefined;
}

interface Folder {
  /** As the image would name it: relative to its own folder, with a slash at its end, or empty. */
  readonly seen: string;
  /** For the host. */
  readonly path: string;
}

interface Candidate {
  readonly filename: string;
  /** It is as it was when the child was made. */
  readonly unchanged: boolean;
}

/**
 * The first file, by name, whose image UUID is the link UUID; one whose modification UUID fits too goes before. Undefined:
 * there is none. What cannot be read is passed over.
 */
export async function findParent(search: Search): Promise<BackingReference | undefined> {
  const folders = await foldersOf(search);
  let best: Candidate | undefined;
  for (const folder of folders) {
    const found = await searchFolder(search, folder);
    if (found !== undefined && (best === undefined || found.unchanged)) best = found;
    if (best?.unchanged) break;
  }
  if (best === undefined) return undefined;
  // The parent's own parent may be in one of the same folders.
  const others = await Promise.all(folders.map(({ path }) => resolved(search.host, path)));
  const listed = others.filter((path) => !path.includes(':'));
  const options = search.folders === '' ? {} : { options: { 'parent-folders': listed.join(':') } };
  return { filename: best.filename, format: 'vdi', ...options };
}

/** What to say when there is none: where it was looked for, and how to help. */
export function parentMissing(search: Search): BlockError {
  const { filename, header, folders } = search;
  if (sameUuid(header.uuid, header.linkUuid)) {
    return new BlockError(
      'ELOOP',
      `'${filename}' names itself as its parent: the UUID of both is ${formatUuid(header.uuid)}`,
    );
  }
  const where = folders === '' ? 'its folder' : `its folder or in '${folders}'`;
  const text = `No parent of '${filename}' is in ${where}: it must be a VDI with the UUID ${formatUuid(header.linkUuid)}`;
  const hint = 'Name it with backing.file.filename=FILE, or its folder with parent-folders=FOLDER';
  return new BlockError('ENOENT', text, { hint });
}

/** The image's own folder, that of the file its name leads to if that is a link, and the ones that were given. */
async function foldersOf({ host, filename, folders }: Search): Promise<readonly Folder[]> {
  const given = folders.split(':').filter((name) => name !== '');
  const found: Folder[] = [];
  const add = (seen: string) => {
    const path = combineNames(filename, seen);
    if (found.length < FOLDERS_MAX && !found.some((folder) => folder.path === path)) found.push({ seen, path });
  };
  const isLocal = !filename.startsWith('json:') && filename !== '';
  if (isLocal) {
    add('');
    const real = await resolved(host, filename);
    if (real !== filename && real.startsWith('/')) add(real.slice(0, real.lastIndexOf('/') + 1));
  }
  for (const name of given) if (isLocal || name.startsWith('/')) add(name.endsWith('/') ? name : `${name}/`);
  return found;
}

async function resolved(host: Host, path: string): Promise<string> {
  return host.files.resolve(path === '' ? '.' : path).catch(() => path);
}

async function searchFolder(search: Search, folder: Folder): Promise<Candidate | undefined> {
  const { host, header, context, signal } = search;
  const names = await host.files.list(folder.path === '' ? '.' : folder.path).catch(nothing);
  const own = await host.files.stat(search.filename, context).catch(nothing);
  let best: Candidate | undefined;
  for (const name of inOrder(names ?? [], formatUuid(header.linkUuid))) {
    signal?.throwIfAborted();
    const found = await readHeaderOf(host, folder.path + name, context, own?.identity);
    if (found === undefined || !sameUuid(found.uuid, header.linkUuid)) continue;
    const filename = plainName(folder, name);
    const unchanged = sameUuid(found.modificationUuid, header.parentUuid);
    if (unchanged) return { filename, unchanged };
    best ??= { filename, unchanged };
  }
  return best;
}

/** As the image would name the file; what begins like a protocol's name is none. */
function plainName({ seen, path }: Folder, name: string): string {
  if (protocolPrefix(seen + name) === undefined) return seen + name;
  return path.startsWith('/') ? path + name : `./${seen}${name}`;
}

/** Names that hold the UUID first, as VirtualBox calls snapshots, then those that look like VDIs; each part by name. */
function inOrder(names: readonly string[], uuid: string): string[] {
  const rank = (name: string) => {
    const lower = name.toLowerCase();
    if (lower.includes(uuid)) return 0;
    return lower.endsWith('.vdi') ? 1 : 2;
  };
  const ranked = names.map((name) => ({ name, rank: rank(name) }));
  ranked.sort((a, b) => a.rank - b.rank || (a.name < b.name ? -1 : 1));
  return ranked.slice(0, FILES_MAX).map(({ name }) => name);
}

/** Undefined for what is no VDI, no regular file, or the file that is to be left out. */
async function readHeaderOf(
  host: Host,
  path: string,
  context: HostContext | undefined,
  without: string | undefined,
): Promise<VdiHeader | undefined> {
  try {
    const { kind, size, identity } = await host.files.stat(path, context);
    if (kind !== 'regular' || size < HEADER_BYTES || identity === without) return undefined;
    return await readVdiHeader(host, path, context);
  } catch (error) {
    return nothing(error);
  }
}

/** The header of a VDI that an image or a user names, relative to the file `from`. Throws BlockError. */
export async function readNamedHeader(host: Host, from: string, name: string): Promise<VdiHeader> {
  const options = jsonNameOptions(name);
  if (options === undefined) return readVdiHeader(host, stripPrefix(resolveBackingName(from, name), 'file'));
  const { driver = 'vdi', 'file.driver': protocol = 'file', 'file.filename': filename } = options;
  if (driver === 'vdi' && protocol === 'file' && typeof filename === 'string') return readVdiHeader(host, filename);
  throw new BlockError('ENOTSUP', `'${name}' is no VDI in a local file, whose UUIDs could be recorded`);
}

/** The header of a VDI in a file of the host. Throws BlockError: the host's, or EINVAL for what is no VDI. */
async function readVdiHeader(host: Host, path: string, context?: HostContext): Promise<VdiHeader> {
  const file = await host.files.open(path, { write: false, ...(context === undefined ? {} : { context }) });
  try {
    const bytes = new Uint8Array(HEADER_BYTES);
    const count = await file.read(0, bytes);
    const header = decodeHeader(bytes);
    if (count < HEADER_BYTES || header.signature !== SIGNATURE) {
      throw new BlockError('EINVAL', `'${path}' is no VDI image`);
    }
    return header;
  } finally {
    await file.close();
  }
}

/** A file that cannot be read is not the one. */
function nothing(error: unknown): undefined {
  if (!(error instanceof BlockError)) throw error;
  return undefined;
}
