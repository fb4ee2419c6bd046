/** Walks along backing chains (BL-CHAIN-5, -8 to -10, -17; BL-FILTER-1). Filters are links of a chain too. */
import { resolveStoredName } from './backing-name.ts';
import { BlockError } from './errors.ts';
import { protocolPrefix } from './filename.ts';
import type { Host } from './host.ts';
import type { BlockNode, Link } from './node.ts';

/** The link to what is next in the chain: a filter's child, or the backing image. */
function chainLink(node: BlockNode): Link | undefined {
  return node.filtered ?? node.backing;
}

/** The node itself, then all below it in its chain, filters included. */
export function chainOf(node: BlockNode): BlockNode[] {
  const chain = [node];
  for (let link = chainLink(node); link !== undefined; link = chainLink(link.node)) chain.push(link.node);
  return chain;
}

/** The first node at or below `node` that is no filter. */
export function skipFilters(node: BlockNode): BlockNode {
  let found = node;
  for (let link = found.filtered; link !== undefined; link = found.filtered) found = link.node;
  return found;
}

/** The image below `node`, filters skipped; undefined for the last. */
export function backingImage(node: BlockNode): BlockNode | undefined {
  const link = skipFilters(node).backing;
  return link && skipFilters(link.node);
}

/** The images of a chain from the top, filters skipped. */
export function imagesOf(node: BlockNode): BlockNode[] {
  const images = [skipFilters(node)];
  for (let next = backingImage(node); next !== undefined; next = backingImage(next)) images.push(next);
  return images;
}

/**
 * The image whose backing image is `node`, in the chain of `active`; undefined if there is none (BL-CHAIN-8).
 * Without `node`: the last image of the chain.
 */
export function findOverlay(active: BlockNode, node: BlockNode | undefined): BlockNode | undefined {
  const wanted = node && skipFilters(node);
  return imagesOf(active).find((image) => backingImage(image) === wanted);
}

/** The last image of a chain. */
export function findBase(active: BlockNode): BlockNode {
  return imagesOf(active).at(-1) ?? active;
}

/** Whether `base` is `top` or below it in its chain (BL-CHAIN-9). */
export function chainContains(top: BlockNode, base: BlockNode): boolean {
  return chainOf(top).includes(base);
}

/** How many images are below `node` (BL-CHAIN-9). */
export function backingDepth(node: BlockNode): number {
  return imagesOf(node).length - 1;
}

/**
 * The image below `node` that an overlay's header names `text` (BL-CHAIN-10), or whose name that is. Texts with a
 * protocol prefix must be equal; others are compared as files, with links resolved. A link that was overridden is known
 * by its image's name alone.
 */
export async function findBackingImage(host: Host, node: BlockNode, text: string): Promise<BlockNode | undefined> {
  for (const overlay of imagesOf(node)) {
    const below = backingImage(overlay);
    if (below === undefined) return undefined;
    for (const name of namesOf(overlay, below)) {
      if (await sameFile(host, overlay, name, text)) return below;
    }
  }
  return undefined;
}

/** What the image below may be called: its own name, and the stored one unless another image was put there. */
function namesOf(overlay: BlockNode, below: BlockNode): string[] {
  const stored = overlay.storedBacking?.filename;
  const overridden = below.filename !== overlay.automaticBackingName;
  return stored === undefined || overridden ? [below.filename] : [stored, below.filename];
}

async function sameFile(host: Host, overlay: BlockNode, name: string, text: string): Promise<boolean> {
  try {
    if (protocolPrefix(name) !== undefined || protocolPrefix(text) !== undefined) {
      return name === text || resolveStoredName(overlay, name) === text;
    }
    const [a, b] = await Promise.all(
      [name, text].map(async (each) => {
        const path = resolveStoredName(overlay, each);
        await host.files.stat(path);
        return host.files.resolve(path);
      }),
    );
    return a === b;
  } catch (error) {
    if (error instanceof BlockError) return false;
    throw error;
  }
}

/**
 * Makes all links from `top` down to `base` unchangeable, or none (BL-CHAIN-17). `base` absent: to the chain's end. The
 * result lets go of these very links again, once. EPERM; TypeError for a base that is not in the chain.
 */
export function freezeChain(top: BlockNode, base: BlockNode | undefined): () => void {
  const links = linksBetween(top, base);
  for (const link of links) {
    const { name, node } = link;
    if (link.frozen) {
      throw new BlockError('EPERM', `Cannot change '${name}' link from '${linkOwner(top, link)}' to '${node.name}'`);
    }
    if (node.driver.kind === 'filter' && node.driver.mayGo === true) {
      throw new BlockError('EPERM', `Cannot freeze '${name}' link to '${node.name}'`);
    }
  }
  for (const link of links) link.frozen = true;
  let held = true;
  return () => {
    if (held) for (const link of links) link.frozen = false;
    held = false;
  };
}

function linksBetween(top: BlockNode, base: BlockNode | undefined): Link[] {
  const links: Link[] = [];
  for (let node = top; node !== base; ) {
    const link = chainLink(node);
    if (link === undefined && base === undefined) break;
    if (link === undefined) throw new TypeError(`node '${base?.name}' is not in the chain of '${top.name}'`);
    links.push(link);
    node = link.node;
  }
  return links;
}

function linkOwner(top: BlockNode, link: Link): string {
  return chainOf(top).find((node) => node.children.includes(link))?.name ?? '';
}
