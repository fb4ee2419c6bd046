/** Changing the format options of an existing image (BL-INFO-15). */
import type { AmendOptions, DriverSpec } from './driver.ts';
import { BlockError } from './errors.ts';
import type { BlockNode } from './node.ts';
import type { AnySchema, OptionTree } from './options.ts';
import * as request from './request.ts';

/** The options that images of a driver can be amended by. Throws BlockError ENOTSUP where there are none. */
export function amendSchema(driver: DriverSpec): AnySchema {
  const schema = driver.kind === 'format' ? driver.amendOptions : undefined;
  if (schema !== undefined) return schema;
  throw new BlockError('ENOTSUP', `Format driver '${driver.name}' does not support option amendment`);
}

/** Throws BlockError EINVAL for the first option that there is not, or whose value cannot be. */
export function checkAmendOptions(driver: DriverSpec, options: OptionTree): void {
  const schema = amendSchema(driver);
  const forCreation: object = driver.create?.options ?? {};
  for (const [name, value] of Object.entries(options)) {
    const spec = Object.hasOwn(schema, name) ? schema[name] : undefined;
    if (spec !== undefined) {
      spec.parse(value, name);
      continue;
    }
    // As qemu-img says it: of options that an image could be made with, all of them.
    const isForCreation = Object.keys(options).every((each) => Object.hasOwn(forCreation, each));
    const hint = isForCreation ? 'This option is only supported for image creation' : undefined;
    throw new BlockError('EINVAL', `Invalid parameter '${name}'`, { hint });
  }
}

/** Throws BlockError: ENOTSUP where the format cannot, EINVAL for options that cannot be. The node must be drained. */
export async function amend(node: BlockNode, options: OptionTree, how: AmendOptions = {}): Promise<void> {
  if (!node.isOpen) throw new BlockError('ENOMEDIUM', 'Node is ejected', { node: node.name });
  const { impl, driver } = node;
  if (impl.amend === undefined) {
    const text = `Block driver '${driver.name}' does not support option amendment`;
    throw new BlockError('ENOTSUP', text, { node: node.name });
  }
  checkAmendOptions(driver, options);
  try {
    await impl.amend(options, {
      ...how,
      truncate: (length) => request.truncate(node, length, { shrink: true }),
    });
  } finally {
    node.writeGeneration++;
    request.refreshLimits(node);
    request.noteLength(node);
  }
}
