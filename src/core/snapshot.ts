/** Overlays put on top of an image: one that stays (an external snapshot), and one that goes (BL-OPEN-28). */
import { combineNames, isAbsoluteName } from './backing-name.ts';
import { skipFilters } from './chain.ts';
import { append } from './chain-change.ts';
import { createImage } from './create.ts';
import type { OpenOptions } from './disk.ts';
import type { FormatSpec } from './driver.ts';
import { addContext, BlockError } from './errors.ts';
import { protocolPrefix } from './filename.ts';
import type { Graph } from './graph.ts';
import { lengthOf } from './info.ts';
import type { BlockNode } from './node.ts';
import { type OpenRequest, openNode } from './open.ts';
import type { NestedOptions, OptionTree } from './options.ts';
import { refreshAbove } from './refresh.ts';
import { setReadOnly } from './reopen.ts';
import * as request from './request.ts';
import { makeTemporaryFile } from './temporary-file.ts';

export interface SnapshotOptions {
  /** Of the overlay. Default: the top image's, if it can have a backing file. */
  readonly format?: string;
  /** The format's creation options. */
  readonly createOptions?: OptionTree;
  /** Options of the opened overlay. */
  readonly open?: NestedOptions;
  /** The overlay is there already, empty, and names what is below it. */
  readonly existing?: boolean;
}

/**
 * Makes `filename` an overlay of `top` and puts it there: what is written from then on goes into it, and `top`, which
 * becomes read-only, stays as it is. Returns the overlay's node, which stays open as long as its users. Throws
 * BlockError; a file that was made is then removed.
 */
export async function snapshot(
  graph: Graph,
  top: BlockNode,
  filename: string,
  options: SnapshotOptions = {},
): Promise<BlockNode> {
  // Filters are of this session; the header names the image below them.
  const image = skipFilters(top);
  const format = options.format ?? image.driver.name;
  if (top.parents.length === 0) {
    throw new BlockError('EINVAL', `Node '${top.name}' has no user that an overlay could come between`);
  }
  const named = await nameFrom(graph, filename, image.filename);
  const drain = await graph.drain(top);
  let overlay: BlockNode | undefined;
  let made = false;
  try {
    // Readers of the overlay's file must find what they are told is below.
    if (top.writable) await request.flush(top);
    if (options.existing !== true) {
      // It is open, and so needs no look.
      const backing = { backingFile: named, backingFormat: image.driver.name, unchecked: true };
      await createImage(graph, {
        filename,
        format,
        size: top.impl.length(),
        options: options.createOptions ?? {},
        ...backing,
      });
      made = true;
    }
    const tree = { ...options.open, driver: format, file: { driver: 'file', filename }, backing: null };
    overlay = await graph.add(tree);
    await append(graph, overlay, top);
    // What the header tells, by this name, by another of the same file, or by other means.
    if (made) overlay.automaticBackingName = image.filename;
    else overlay.automaticBackingName ||= image.filename;
    refreshAbove([overlay]);
  } catch (error) {
    if (overlay !== undefined) await graph.release(overlay).catch(() => {});
    if (made) await graph.host.files.remove(filename).catch(() => {});
    throw error;
  } finally {
    drain.end();
  }
  await setReadOnly(graph, top, true).catch((error) => graph.host.notice(`'${top.filename}' stays writable: ${error}`));
  await graph.release(overlay);
  return overlay;
}

/** How an image in the file `from` names the file `name`, which is as seen from here: another folder needs the whole path. */
async function nameFrom({ host }: Graph, from: string, name: string): Promise<string> {
  if (name.startsWith('json:') || protocolPrefix(name) !== undefined || isAbsoluteName(name)) return name;
  const base = name.slice(name.lastIndexOf('/') + 1);
  if (combineNames(from, base) === name) return base;
  return host.files.resolve(name);
}

/**
 * Opens an image under a temporary overlay that takes all writes and is gone when it is closed. The overlay's header
 * names nothing, and its file has no name once it is open. Throws BlockError; then nothing is left.
 */
export async function openUnderOverlay(graph: Graph, asked: OpenRequest): Promise<BlockNode> {
  const { snapshot: _snapshot, ...options } = asked.options;
  const format = overlayFormat(graph);
  const bottom = await openNode(graph, { ...asked, options: { ...options, writable: false } });
  let overlay: BlockNode | undefined;
  try {
    overlay = await temporaryOverlay(graph, format, bottom, options);
    await append(graph, overlay, bottom);
    return overlay;
  } catch (error) {
    if (overlay !== undefined) await graph.unpin(overlay).catch(() => {});
    throw error;
  } finally {
    await graph.unpin(bottom).catch(() => {});
  }
}

/** The newest format that has overlays without a recorded parent. */
function overlayFormat(graph: Graph): FormatSpec<never, never> & { readonly temporaryOverlay: OptionTree } {
  for (const driver of graph.drivers) {
    if (driver.kind === 'format' && driver.temporaryOverlay !== undefined) {
      return { ...driver, temporaryOverlay: driver.temporaryOverlay };
    }
  }
  throw new BlockError('ENOTSUP', 'No format is there for a temporary overlay');
}

async function temporaryOverlay(
  graph: Graph,
  { name: format, temporaryOverlay: createOptions }: ReturnType<typeof overlayFormat>,
  bottom: BlockNode,
  options: OpenOptions,
): Promise<BlockNode> {
  const { files } = graph.host;
  const size = lengthOf(bottom, 'Could not get image size');
  const filename = await makeTemporaryFile(graph.host);
  try {
    await createImage(graph, { filename, format, size, options: createOptions }).catch((error) => {
      throw addContext(`Could not create temporary overlay '${filename}'`, error);
    });
    const tree: OptionTree = {
      driver: format,
      'file.driver': 'file',
      'file.filename': filename,
      backing: null,
      'cache.direct': false,
      'cache.no-flush': true,
      'read-only': options.writable !== true,
      discard: options.discard ?? 'unmap',
    };
    // Format and name were given for the image below.
    const { format: _format, nodeName: _name, ...others } = options;
    const overlay = await openNode(graph, { filename: undefined, tree, options: { ...others, writable: true } });
    overlay.temporary = true;
    return overlay;
  } finally {
    await files.remove(filename).catch(() => {});
  }
}
