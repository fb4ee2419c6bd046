/** The shell's state: the image that is open, and the requests that run beside the commands. */
import { Disk, type OpenOptions } from '../../core/disk.ts';
import { asBlockError, BlockError, errorText } from '../../core/errors.ts';
import { protocolPrefix } from '../../core/filename.ts';
import type { Graph } from '../../core/graph.ts';
import { openNode } from '../../core/open.ts';
import { type OptionTree, parseBoolOption } from '../../core/options.ts';
import { blkdebugOf } from '../../filters/blkdebug/control.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { requireDirectFiles } from '../native-aio.ts';
import type { IoCommand } from './command.ts';
import { CommandFailure } from './failure.ts';

export interface ImageSource {
  readonly filename: string | undefined;
  readonly tree: OptionTree;
  readonly options: OpenOptions;
  /** What messages call it: not an option string. */
  readonly shownName: string | undefined;
  /** Files are to be opened for the kernel's own asynchronous requests, which need the host's cache out of the way. */
  readonly nativeAio: boolean;
}

export interface SessionSettings {
  /** Names of images are option strings. */
  readonly imageOpts: boolean;
  readonly commands: readonly IoCommand[];
}

export class Session {
  readonly context: Context;
  readonly imageOpts: boolean;
  readonly commands: readonly IoCommand[];
  readonly graph: Graph;
  quitting = false;
  /** Told when something was printed that no command has just printed. */
  onInterruption: () => void = () => {};
  #disk: Disk | undefined;
  #options: OpenOptions = {};
  readonly #pending = new Set<Promise<void>>();
  /** Wakes who waits for a suspension or for the end of a request. */
  #wake: (() => void)[] = [];

  constructor(context: Context, { imageOpts, commands }: SessionSettings) {
    this.context = context;
    this.imageOpts = imageOpts;
    this.commands = commands;
    this.graph = newGraph(context);
  }

  get hasImage(): boolean {
    return this.#disk !== undefined;
  }

  /** Only commands that need an image ask for it, and these run with one. */
  get disk(): Disk {
    if (this.#disk === undefined) throw new BlockError('ENOMEDIUM', 'No medium found');
    return this.#disk;
  }

  print(text: string): void {
    this.context.out.write(text);
  }

  line(text: string): void {
    this.print(`${text}\n`);
  }

  /** Whether requests run beside the commands. */
  get busy(): boolean {
    return this.#pending.size > 0;
  }

  /** Runs a request beside the commands; it must not fail. */
  background(work: Promise<void>): void {
    const settled = work.finally(() => {
      this.#pending.delete(settled);
      this.#changed();
    });
    this.#pending.add(settled);
  }

  /** A request was suspended, or has ended. */
  whenChanged(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve));
  }

  #changed(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const resolve of waiting) resolve();
  }

  /** Lets what runs beside the commands end; what is suspended goes on (BD-36). */
  async settle(): Promise<void> {
    while (this.busy) {
      if (this.#disk?.isOpen) (await this.graph.drain(this.#disk.node)).end();
      await Promise.race(this.#pending);
    }
  }

  /** Throws Failure in the words of T-IO-2. */
  async open({ filename, tree, options, shownName, nativeAio }: ImageSource): Promise<void> {
    const shared = tree['force-share'];
    if (options.forceShare === true && shared !== undefined && !parseBoolOption(shared, 'force-share')) {
      throw new Failure('-U conflicts with image options');
    }
    try {
      const node = await openNode(this.graph, { filename, tree: withAio(tree, filename, options, nativeAio), options });
      try {
        if (nativeAio) requireDirectFiles(this.graph);
        this.#disk = await Disk.attach(this.graph, node, options);
      } finally {
        await this.graph.unpin(node);
      }
    } catch (error) {
      const { message, hint, holder } = asBlockError(error);
      const prefix = shownName === undefined ? "can't open" : `can't open device ${shownName}`;
      throw new Failure(`${prefix}: ${message}`, { hint, holder, cause: error });
    }
    this.#options = options;
    this.#listenForBreakpoints();
  }

  /** Waits for requests, and lets go of the image. */
  async close(): Promise<void> {
    await this.settle();
    const disk = this.#disk;
    this.#disk = undefined;
    try {
      await disk?.close();
    } catch (error) {
      if (!this.context.dialect.qemu) throw error;
      // qemu-io tells of what a driver says, not of what the system says, and its exit status of neither.
      const { code, message } = asBlockError(error);
      if (message !== errorText(code)) this.context.messages.error(message);
    }
  }

  /** Holds the image with or without the permission to write. EPERM where the node is read-only. */
  async holdWritable(writable: boolean): Promise<void> {
    const before = this.disk;
    if (before.writable === writable) return;
    const { node } = before;
    if (writable && !node.writable) throw readOnly();
    if (!writable) await this.settle();
    // The cache mode may have changed since it was opened.
    const { cache: _cache, ...options } = this.#options;
    this.#disk = await Disk.attach(this.graph, node, { ...options, writable });
    // Reads that began there end there.
    this.background(before.close().catch((error) => this.explain(error)));
  }

  /** Notices of BD-31. */
  #listenForBreakpoints(): void {
    for (const node of this.graph.nodes()) {
      if (node.driver.name !== 'blkdebug') continue;
      const { engine } = blkdebugOf(node);
      engine.onSuspend = (tag) => {
        this.notice(`blkdebug: Suspended request '${tag}'\n`);
        this.#changed();
      };
      engine.onResume = (tag) => this.notice(`blkdebug: Resuming request '${tag}'\n`);
    }
  }

  /** Prints what may come while nobody has asked for anything. */
  notice(text: string): void {
    this.print(text);
    this.onInterruption();
  }

  /** Prints why a command failed. Throws mistakes of the program on. */
  explain(error: unknown): void {
    const { messages, dialect } = this.context;
    if (error instanceof CommandFailure) {
      if (error.details.complaint !== undefined) messages.raw(`${error.details.complaint}\n`);
      if (error.details.line !== undefined) this.line(error.details.line);
      return;
    }
    const { message, hint, holder } =
      error instanceof Failure ? { message: error.message, ...error.details } : asBlockError(error);
    const lines = [hint, dialect.qemu ? undefined : holder].filter((line) => line !== undefined);
    messages.error(message, lines.length === 0 ? undefined : lines.join('\n'));
  }

  /** `read failed: Input/output error` (T-REP-3); people are told more. */
  requestFailed(what: string, error: unknown): CommandFailure {
    const { code, message, hint } = asBlockError(error);
    if (!this.context.dialect.qemu && message !== errorText(code)) this.context.messages.error(message, hint);
    return new CommandFailure({ line: `${what} failed: ${errorText(code)}` });
  }
}

/** Where the format is to be guessed, the file refuses before that. */
function withAio(tree: OptionTree, filename: string | undefined, { format }: OpenOptions, native: boolean): OptionTree {
  const guessed = filename !== undefined && format === undefined && tree.driver === undefined;
  if (!native || !guessed || protocolPrefix(filename) !== undefined) return tree;
  return { 'file.aio': 'native', ...tree };
}

function readOnly(): BlockError {
  return new BlockError('EPERM', 'Block node is read-only');
}
