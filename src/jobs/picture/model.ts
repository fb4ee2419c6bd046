/** What a picture of a graph shows, as plain data. */

import type { Graph } from '../../core/graph.ts';
import { allocatedSize } from '../../core/info.ts';
import { BlockNode, type GraphUser, type Link } from '../../core/node.ts';
import { PERMISSION_NAMES, type PermissionSet } from '../../core/permissions.ts';
import { DEFAULT_LIMITS } from '../../core/request.ts';

/** A graph as plain data, to be drawn: see {@link graphPicture}. */
export interface GraphPicture {
  /** Users first, then nodes; parents before children. */
  readonly boxes: readonly PictureBox[];
  readonly links: readonly PictureLink[];
}

/** Who uses nodes, or a node. */
export type PictureBox = PictureUser | PictureNode;

/** Somebody who uses a node and is none: a disk, a device, a job. */
export interface PictureUser {
  readonly kind: 'user';
  /** Unique in the picture. */
  readonly id: string;
  readonly description: string;
}

/** Sizes in bytes. */
export interface PictureNode {
  readonly kind: 'protocol' | 'format' | 'filter';
  readonly id: string;
  readonly name: string;
  readonly driver: string;
  readonly filename: string;
  readonly length: number;
  /** Storage in use; undefined: not known. */
  readonly allocated: number | undefined;
  readonly writable: boolean;
  /** Made by the core for its own ends. */
  readonly implicit: boolean;
  /** An overlay of `snapshot=on`, gone when it is closed (BL-INFO-11). */
  readonly temporary: boolean;
  readonly limits: PictureLimits;
}

/** Bytes; what is undefined is not limited. */
export interface PictureLimits {
  readonly requestAlign: number;
  readonly transferMax: number | undefined;
  readonly preferred: number | undefined;
}

/** What a user or a node has of a node below: what it needs of it, and shares with others. */
export interface PictureLink {
  /** Identities of boxes. */
  readonly from: string;
  readonly to: string;
  readonly name: string;
  readonly role: string;
  readonly needs: readonly string[];
  readonly shares: readonly string[];
  /** A job keeps it as it is. */
  readonly frozen: boolean;
}

/** The whole graph, or what is at and below `root` and its direct users. */
export function graphPicture(graph: Graph, root?: BlockNode): GraphPicture {
  const nodes = root === undefined ? graph.nodes() : below(root);
  const ids = new Map<BlockNode | GraphUser, string>();
  for (const node of nodes) ids.set(node, `n${ids.size}`);
  const users: PictureUser[] = [];
  const links: PictureLink[] = [];
  for (const node of nodes) {
    for (const link of node.parents) {
      if (!ids.has(link.parent)) {
        if (link.parent instanceof BlockNode) continue;
        const id = `u${users.length}`;
        ids.set(link.parent, id);
        users.push({ kind: 'user', id, description: link.parent.deviceName ?? link.parent.description });
      }
      links.push(pictureLink(link, ids));
    }
  }
  return { boxes: [...users, ...parentsFirst(nodes).map((node) => pictureNode(node, ids))], links };
}

function below(root: BlockNode): BlockNode[] {
  const found = new Set([root]);
  for (const node of found) for (const link of node.children) found.add(link.node);
  return [...found];
}

/** Nodes are opened from the bottom, so children come first in a graph. */
function parentsFirst(nodes: readonly BlockNode[]): BlockNode[] {
  const wanted = new Set(nodes);
  const order = new Set<BlockNode>();
  const visit = (node: BlockNode) => {
    if (order.has(node) || !wanted.has(node)) return;
    for (const { parent } of node.parents) if (parent instanceof BlockNode) visit(parent);
    order.add(node);
  };
  for (const node of nodes) visit(node);
  return [...order];
}

function pictureNode(node: BlockNode, ids: ReadonlyMap<BlockNode | GraphUser, string>): PictureNode {
  const { requestAlign, transferMax, preferred } = node.limits;
  return {
    kind: node.driver.kind,
    id: ids.get(node) ?? '',
    name: node.name,
    driver: node.driver.name,
    filename: node.filename,
    length: node.isOpen ? node.impl.length() : 0,
    allocated: node.isOpen ? allocatedSize(node) : undefined,
    writable: node.writable,
    implicit: node.implicit,
    temporary: node.temporary,
    limits: {
      requestAlign,
      transferMax: transferMax < DEFAULT_LIMITS.transferMax ? transferMax : undefined,
      preferred: preferred > 0 ? preferred : undefined,
    },
  };
}

function pictureLink(link: Link, ids: ReadonlyMap<BlockNode | GraphUser, string>): PictureLink {
  return {
    from: ids.get(link.parent) ?? '',
    to: ids.get(link.node) ?? '',
    name: link.name,
    role: link.parent instanceof BlockNode ? link.role : 'root',
    needs: names(link.held.need),
    shares: names(link.held.share),
    frozen: link.frozen,
  };
}

function names(set: PermissionSet): string[] {
  return PERMISSION_NAMES.filter(([bit]) => (set & bit) !== 0).map(([, name]) => name);
}
