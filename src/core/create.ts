/** Making images (BL-CREATE). */
import { backingAsOptions, checkBacking, requireFormat } from './create-backing.ts';
import type { Child, DriverSpec, FormatSpec } from './driver.ts';
import { addContext, BlockError, errorText, withErrno } from './errors.ts';
import { protocolPrefix } from './filename.ts';
import { type NamedDriver, protocolFor } from './find-driver.ts';
import type { Graph } from './graph.ts';
import type { GraphUser } from './node.ts';
import { openNode } from './open.ts';
import { type AnySchema, type OptionTree, type OptionValue, parseOptions } from './options.ts';
import { ALL_PERMISSIONS, Permission } from './permissions.ts';

/** The image that {@link createImage} makes. */
export interface CreateRequest {
  readonly filename: string;
  readonly format: string;
  /** Creation options as given, of the format and of the protocol. */
  readonly options?: OptionTree;
  /** Bytes; instead of the option `size`. */
  readonly size?: number | undefined;
  /** What the image is to be based on, and its format (BL-CREATE-6). */
  readonly backingFile?: string | undefined;
  readonly backingFormat?: string | undefined;
  /** The image below is not looked at, and need not be there; the size must be given (BL-CREATE-7). */
  readonly unchecked?: boolean;
  /** Nothing waits for the storage: whoever makes the image sees to it when it is complete, or does without. Default false. */
  readonly noFlush?: boolean | undefined;
  /** Gets the line `Formatting '…', fmt=…` before the work starts (BL-CREATE-8). */
  readonly report?: ((line: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The drivers that would make an image, checked to be able to (BL-CREATE-3). */
export async function creationDrivers(graph: Graph, format: string, filename: string | undefined) {
  const spec = graph.driver(format);
  if (spec === undefined) throw new BlockError('EINVAL', `Unknown file format '${format}'`);
  const protocol = filename === undefined ? undefined : await protocolFor(graph, filename, true);
  if (spec.create === undefined) {
    throw new BlockError('ENOTSUP', `Format driver '${format}' does not support image creation`);
  }
  // Without names there is nothing that was there before and could take the image.
  const named = protocol?.needsFilename === true || (protocol?.kind === 'protocol' && protocol.reusable === true);
  const reusable = spec.kind === 'format' && named;
  if (protocol !== undefined && protocol.create === undefined && !reusable) {
    throw new BlockError('ENOTSUP', `Protocol driver '${protocol.name}' does not support image creation`);
  }
  return { spec, protocol };
}

/** The options a creation takes: the format's, then the protocol's that the format does not have (BL-CREATE-4). */
export function creationSchema(spec: DriverSpec, protocol: NamedDriver | undefined): AnySchema {
  const own = (spec.create?.options ?? {}) as AnySchema;
  const below = (protocol?.create?.options ?? {}) as AnySchema;
  const added = Object.entries(below).filter(([name]) => !Object.hasOwn(own, name));
  return { ...own, ...Object.fromEntries(added) };
}

/**
 * The values of creation options, by type; a text that only some values are legal for is taken as it is, since whoever
 * uses it tells what is wrong, after the `Formatting` line (T-CREATE-2).
 */
export function checkCreationOptions(schema: AnySchema, tree: OptionTree): Record<string, unknown> {
  const early = Object.fromEntries(
    Object.entries(schema).map(([name, spec]) => [name, spec.values === undefined ? spec : { ...spec, parse: String }]),
  );
  const { values, rest } = parseOptions<Record<string, unknown>>(early, tree);
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw new BlockError('EINVAL', `Invalid parameter '${unknown}'`);
  return values;
}

/** Makes an image. Throws BlockError; a file that was not there before is then removed again. */
export async function createImage(graph: Graph, asked: CreateRequest): Promise<void> {
  const { spec, protocol } = await creationDrivers(graph, asked.format, asked.filename);
  if (protocol === undefined) throw new TypeError('a file name was given');
  const schema = creationSchema(spec, protocol);
  const given: Record<string, OptionValue> = { ...asked.options };
  const values = checkCreationOptions(schema, given);
  if (asked.size !== undefined) {
    if (given.size !== undefined) throw new BlockError('EINVAL', 'The image size must be specified only once');
    given.size = asked.size;
    values.size = asked.size;
  }
  const below = backingAsOptions(asked, spec);
  Object.assign(given, below);
  Object.assign(values, below);
  const backingSize = await checkBacking(graph, asked, spec, given);
  if (given.size === undefined && backingSize !== undefined) given.size = values.size = backingSize;
  if (given.size === undefined) throw new BlockError('EINVAL', 'Image creation needs a size parameter');
  asked.report?.(formattingLine(asked, schema, values, given));
  requireFormat(graph, spec, given);
  asked.signal?.throwIfAborted();
  try {
    await make(graph, asked, spec, protocol, given);
  } catch (error) {
    if (error instanceof BlockError && error.code === 'EFBIG') {
      const hint = Number(values.cluster_size ?? 0) > 0 ? ' (try using a larger cluster size)' : '';
      const text = `The image size is too large for file format '${asked.format}'${hint}`;
      throw new BlockError('EFBIG', text, { cause: error });
    }
    throw error;
  }
  graph.emit('diskwright:create', { filename: asked.filename, format: asked.format });
}

async function make(
  graph: Graph,
  asked: CreateRequest,
  spec: DriverSpec,
  protocol: NamedDriver,
  given: OptionTree,
): Promise<void> {
  const { host } = graph;
  const { filename, signal } = asked;
  const own = spec.kind === 'format' ? ((spec.create?.options ?? {}) as AnySchema) : {};
  const passOn = spec.kind === 'format' && spec.createsThroughProtocol === true;
  const existed = await host.files.stat(filename).then(
    () => true,
    () => false,
  );
  const formatOptions =
    spec.kind === 'format' && !passOn ? await checkedOptions(graph, filename, spec, given) : undefined;
  try {
    if (protocol.create === undefined) {
      await reuseExisting(graph, asked, protocol.name, passOn ? Number(given.size ?? 0) : 0);
    } else {
      // Only what the user gave reaches the protocol, not the format's defaults (BL-CREATE-2).
      const below = Object.entries(given).filter(([name]) => passOn || !Object.hasOwn(own, name));
      const options = parseOptions(protocol.create.options, Object.fromEntries(below)).values;
      const { run } = protocol.create;
      await telling(() => run({ filename, options: options as never, host, signal }));
    }
    if (spec.kind === 'format' && !passOn) await writeFormat(graph, asked, spec, formatOptions);
  } catch (error) {
    if (!existed) await host.files.remove(filename).catch(() => {});
    throw error;
  }
}

/** A protocol that cannot create takes what is there, if it is large enough, and clears its first sector. */
async function reuseExisting(graph: Graph, asked: CreateRequest, protocol: string, size: number): Promise<void> {
  const refusal = `Protocol driver '${protocol}' does not support image creation, and opening the image failed`;
  const clear = async (file: Child) => {
    if (file.length() < size) await file.truncate(size);
    await file.writeZeroes(0, Math.min(512, file.length()));
  };
  await withFile(graph, { filename: asked.filename, noFlush: asked.noFlush }, clear, refusal);
}

/** The format's options, which it has not refused. */
async function checkedOptions(
  { host }: Graph,
  filename: string,
  { create }: FormatSpec<never, never>,
  given: OptionTree,
): Promise<unknown> {
  if (create === undefined) throw new TypeError('the format can create');
  const { values } = parseOptions(create.options, given);
  await create.check?.({ filename, options: values as never, host });
  return values;
}

async function writeFormat(
  graph: Graph,
  asked: CreateRequest,
  { create }: FormatSpec<never, never>,
  options: unknown,
): Promise<void> {
  const { host } = graph;
  await withFile(graph, asked, (file) =>
    telling(async () =>
      create?.run({
        file,
        options: options as never,
        host,
        signal: asked.signal,
        withNewFile: (filename, use) => withNewFile(graph, { ...asked, filename }, use),
      }),
    ),
  );
}

/** A failure that only carries the system's text says what failed (BL-CREATE-1). */
async function telling(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof BlockError) || error.message !== errorText(error.code)) throw error;
    throw withErrno(error.code, 'Could not create image', { cause: error });
  }
}

/** A file beside the image that is made with it; whatever its name looks like, it is a local one. */
async function withNewFile(graph: Graph, made: MadeFile, work: (file: Child) => Promise<void>): Promise<void> {
  const { host } = graph;
  const { signal } = made;
  const filename = protocolPrefix(made.filename) === undefined ? made.filename : `./${made.filename}`;
  const existed = await host.files.stat(filename).then(
    () => true,
    () => false,
  );
  try {
    const { create } = await protocolFor(graph, filename, true);
    // What is there is emptied only when it is sure that nobody else uses it.
    await create?.run({ filename, options: parseOptions(create.options, {}).values as never, host, signal });
    await withFile(graph, { ...made, filename }, work);
  } catch (error) {
    if (!existed) await host.files.remove(filename).catch(() => {});
    throw error;
  }
}

type MadeFile = Pick<CreateRequest, 'filename' | 'signal' | 'noFlush'>;

/** Opens the file alone, writable, for as long as `work` runs. `refusal`: what is told when it cannot be opened. */
async function withFile(
  graph: Graph,
  { filename, signal, noFlush = false }: MadeFile,
  work: (file: Child) => Promise<void>,
  refusal?: string,
): Promise<void> {
  const user: GraphUser = { description: 'image creation' };
  const driver = (await protocolFor(graph, filename, true)).name;
  const tree = { driver };
  const options = { writable: true, signal, cache: noFlush ? 'unsafe' : 'writeback' } as const;
  const opening = openNode(graph, { filename, tree, options });
  const node = await opening.catch((error: unknown) => {
    throw refusal === undefined ? error : addContext(refusal, error);
  });
  const need = Permission.consistentRead | Permission.write | Permission.resize;
  const share = ALL_PERMISSIONS & ~(Permission.write | Permission.resize);
  let link: ReturnType<Graph['attach']>;
  try {
    link = graph.attach('file', user, node, 'image', { need, share });
  } catch (error) {
    await graph.unpin(node).catch(() => {});
    throw addContext(`Could not open '${filename}'`, error);
  }
  await graph.unpin(node);
  try {
    await work(link);
  } catch (error) {
    await graph.detach(link).catch(() => {});
    throw error;
  }
  await graph.detach(link);
}

/** `Formatting 't.vdi', fmt=vdi size=1048576 static=off` (BL-CREATE-8, T-CREATE-2). */
function formattingLine(
  asked: CreateRequest,
  schema: AnySchema,
  values: Record<string, unknown>,
  given: OptionTree,
): string {
  const parts = Object.entries(schema)
    .filter(([name, spec]) => given[name] !== undefined || spec.shown === true)
    .map(([name]) => `${name}=${optionText(values[name], given[name])}`);
  return `Formatting '${asked.filename}', fmt=${asked.format} ${parts.join(' ')}`;
}

/** Yes and no are told in the words they were given in. */
function optionText(value: unknown, given: OptionValue | undefined): string {
  if (typeof value === 'boolean') return typeof given === 'string' ? given : value ? 'on' : 'off';
  // All digits, also past the safe integers.
  if (typeof value === 'number') return BigInt(value).toString();
  return String(value).replaceAll(',', ',,');
}
