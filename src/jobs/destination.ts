/**
 * Where a new image is made: beside its final name, which it gets when it is complete. So an interrupted or failed job
 * never leaves a file that looks complete, and what was there before stays until then.
 */

import type { Disk } from '../core/disk.ts';
import { BlockError, withErrno } from '../core/errors.ts';
import { protocolPrefix, stripPrefix } from '../core/filename.ts';
import type { Graph } from '../core/graph.ts';

export interface Destination {
  /** The name to make and open the image by until then. */
  readonly workName: string;
  /** Gives the finished, closed image its final name. */
  commit(): Promise<void>;
  /** Leaves nothing that looks like an image; never throws. */
  abandon(): Promise<void>;
  /** The same error with the final name in its message. */
  rename(error: unknown): unknown;
}

const NAME_ATTEMPTS = 8;
/** File systems take names of 255 bytes; ours is longer than the final one by this much. */
const LONGEST_BASE = 200;

/** Codes that say a folder takes no new files; an existing file in it may still be written. */
const CLOSED_FOLDER: ReadonlySet<string> = new Set(['EACCES', 'EPERM', 'EROFS', 'ENAMETOOLONG']);

/**
 * Chooses: plain names that are absent or regular files get a hidden sibling; devices, pipes and names of other protocols
 * are written in place. Throws BlockError if an existing file may not be written, or is in use by another process.
 */
export async function destinationFor(graph: Graph, filename: string): Promise<Destination> {
  const { files } = graph.host;
  const path = plainPath(filename);
  if (path === undefined || path === '') return inPlace(filename);
  const info = await files.stat(path).catch(() => undefined);
  if (info !== undefined && info.kind !== 'regular') return inPlace(filename);
  const real = await files.resolve(path).catch(() => undefined);
  // Making the image in place then tells what is wrong.
  if (real === undefined) return inPlace(filename);
  const held = info && (await holdExisting(graph, path));
  try {
    const work = await makeSibling(graph, real);
    return beside(graph, filename, work, real, held);
  } catch (error) {
    await held?.close().catch(() => {});
    if (!(error instanceof BlockError)) throw error;
    if (held !== undefined && CLOSED_FOLDER.has(error.code)) return overwriting(graph, filename, path);
    throw withErrno(error.code, `Could not create '${filename}'`, { cause: error });
  }
}

/** The path of a name that means a file; undefined for other protocols and option trees. */
function plainPath(filename: string): string | undefined {
  const prefix = protocolPrefix(filename);
  if (prefix === undefined) return filename;
  return prefix === 'file' ? stripPrefix(filename, 'file') : undefined;
}

/** The file that will be replaced, held against other writers until then. */
function holdExisting(graph: Graph, path: string): Promise<Disk> {
  return graph.open({ driver: 'file', filename: path }, { writable: true });
}

/** A new empty file in the same folder: `.disk.vdi.partial-1a2b3c4d`. */
async function makeSibling(graph: Graph, real: string): Promise<string> {
  const { host } = graph;
  const slash = real.lastIndexOf('/');
  const base = real.slice(slash + 1).slice(0, LONGEST_BASE);
  for (let attempt = 1; ; attempt++) {
    const bytes = new Uint8Array(4);
    host.random(bytes);
    const suffix = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    const name = `${real.slice(0, slash + 1)}.${base}.partial-${suffix}`;
    try {
      const file = await host.files.open(name, { write: true, create: 'new' });
      await file.close().catch(async (error: unknown) => {
        await host.files.remove(name).catch(() => {});
        throw error;
      });
      return name;
    } catch (error) {
      if (!(error instanceof BlockError) || error.code !== 'EEXIST' || attempt === NAME_ATTEMPTS) throw error;
    }
  }
}

function beside(graph: Graph, filename: string, work: string, real: string, held: Disk | undefined): Destination {
  const { files } = graph.host;
  return {
    workName: work,
    async commit() {
      await files.rename(work, real);
      // It has no name any more; nothing in it can matter.
      await held?.close().catch(() => {});
    },
    async abandon() {
      await files.remove(work).catch(() => {});
      await held?.close().catch(() => {});
    },
    rename: (error) => renamed(error, work, filename),
  };
}

/** Where nothing can be made beside the file: it is emptied when the job fails. */
function overwriting(graph: Graph, filename: string, path: string): Destination {
  return {
    ...inPlace(filename),
    async abandon() {
      const file = await graph.host.files.open(path, { write: true }).catch(() => undefined);
      await file?.truncate(0).catch(() => {});
      await file?.close().catch(() => {});
    },
  };
}

function inPlace(filename: string): Destination {
  return { workName: filename, commit: async () => {}, abandon: async () => {}, rename: (error) => error };
}

/** The same error with another name in its message. */
export function renamed(error: unknown, from: string, to: string): unknown {
  if (!(error instanceof BlockError) || !error.message.includes(from)) return error;
  return new BlockError(error.code, error.message.replaceAll(from, to), {
    node: error.node,
    hint: error.hint?.replaceAll(from, to),
    holder: error.holder,
    cause: error,
  });
}
