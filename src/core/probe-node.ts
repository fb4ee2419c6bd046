/** Guessing the format of an opened file, and guarding one that was guessed to be raw (BL-OPEN-13 to 16). */
import type { FormatSpec } from './driver.ts';
import { BlockError, codeOf, withErrno } from './errors.ts';
import { foreignFormat } from './foreign-formats.ts';
import type { Graph } from './graph.ts';
import { isInserted } from './info.ts';
import type { BlockNode } from './node.ts';
import { PROBE_BYTES, probeFormat } from './probe.ts';
import * as request from './request.ts';

/** Throws BlockError when the file cannot be read, or no format knows it. */
export async function probeNode(graph: Graph, file: BlockNode): Promise<FormatSpec<never, never>> {
  const plain = graph.driver('raw');
  // Nothing to look at (BL-OPEN-13).
  if (plain?.kind === 'format' && (file.impl.length() === 0 || !isInserted(file))) return plain;
  const head = new Uint8Array(PROBE_BYTES);
  try {
    if (!request.tryRead(file, 0, head)) await request.read(file, 0, head);
  } catch (cause) {
    throw withErrno(codeOf(cause), 'Could not read image for determining its format', { cause, node: file.name });
  }
  const driver = probeFormat(graph.drivers, head, file.filename);
  if (driver === undefined) {
    throw new BlockError('ENOENT', 'Could not determine image format: No compatible driver found');
  }
  const foreign = driver.name === 'raw' ? foreignFormat(head, file.filename) : undefined;
  if (foreign !== undefined) {
    const hint = "Give the format 'raw' to use the bytes of the file as they are.";
    throw new BlockError('ENOTSUP', `Image is in the format '${foreign}', which is not supported`, { hint });
  }
  return driver;
}

/** BL-OPEN-16: a guest could otherwise make a raw image look like another format to the next opener. */
export function guardGuessedRaw(graph: Graph, node: BlockNode): void {
  graph.host.warn(
    `WARNING: Image format was not specified for '${node.filename}' and probing guessed raw.\n` +
      '         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n' +
      "         Specify the 'raw' format explicitly to remove the restrictions.",
  );
  node.probesAsOther = (head) =>
    probeFormat(graph.drivers, head, node.filename)?.name !== 'raw' || foreignFormat(head, node.filename) !== undefined;
  request.refreshLimits(node);
}
