/** How a command of the shell fails. The session goes on. */

export interface CommandFailureDetails {
  /** Lines on standard output, where qemu-io tells most of what went wrong. */
  readonly line?: string;
  /** The usage line is printed, on standard output. */
  readonly usage?: boolean;
  /** A line on standard error, without the program's name. */
  readonly complaint?: string;
}

export class CommandFailure extends Error {
  override readonly name = 'CommandFailure';
  readonly details: CommandFailureDetails;

  constructor(details: CommandFailureDetails = {}) {
    super(details.line ?? details.complaint ?? 'the command failed');
    this.details = details;
  }
}

/** Ends a command with a line on standard output. */
export function refuse(line: string): never {
  throw new CommandFailure({ line });
}

/** Ends a command whose operands make no sense: the usage line alone (T-IO-6). */
export function wrongUsage(): never {
  throw new CommandFailure({ usage: true });
}
