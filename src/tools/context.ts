/** What a command is given to work with. */
import type { ObjectList } from './command-line/objects.ts';
import type { Dialect } from './dialect.ts';
import type { HeldOutput, Messages } from './output/stream.ts';

export interface Context {
  readonly dialect: Dialect;
  /** The words after the command's name. */
  readonly words: readonly string[];
  readonly out: HeldOutput;
  readonly messages: Messages;
  /** What `--object` options made, as they are read. */
  readonly objects: ObjectList;
  /**
   * Aborted by SIGINT, SIGTERM and SIGHUP. A command that never asks for it is ended by them at once; one that does
   * must watch it, so that it can clean up.
   */
  readonly signal: AbortSignal;
}
