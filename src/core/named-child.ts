/** A file that an image names as a child of its node, beside the image below: an external data file. */
import type { BlockNode } from './node.ts';
import { type Level, openNode } from './open.ts';
import { inheritedSettings } from './open-settings.ts';
import type { ChildRole } from './permissions.ts';

export interface NamedChild {
  readonly name: string;
  readonly role: ChildRole;
  /** Of a local file, whatever it looks like. */
  readonly filename: string;
}

/** Opens and links it, if the policy for names in images lets it. Throws BlockError. */
export async function openNamedChild(
  level: Level,
  node: BlockNode,
  { name, role, filename }: NamedChild,
): Promise<void> {
  const { graph, asked, settings } = level;
  const child = await openNode(graph, {
    filename: undefined,
    tree: { driver: 'file', filename },
    options: { ...asked.options, noBacking: false },
    inherited: { settings: inheritedSettings(settings, role), role, protocolLevel: true },
    depth: (asked.depth ?? 0) + 1,
    namedBy: node.filename,
  });
  try {
    graph.attach(name, node, child, role, undefined);
    child.origin = { ...child.origin, inheritsFrom: node };
  } finally {
    await graph.unpin(child).catch(() => {});
  }
}
