/** How commands end early. */
import { asBlockError, BlockError } from '../core/errors.ts';
import type { Command } from './command.ts';

export interface FailureDetails {
  /** Exit status. Default: that of the command's failures, 1 for misuse. */
  readonly status?: number;
  /** The command line was wrong: the `Try …` line follows the message (T-GEN-4). */
  readonly misuse?: boolean;
  /** Of misuse: the command whose help tells more. */
  readonly about?: string;
  /** A second line, with prefix. */
  readonly continuation?: string;
  /** A file, and perhaps a line in it, that the message is about: stands right after the program's name. */
  readonly place?: string;
  /** Lines that follow the message, without prefix. */
  readonly hint?: string | undefined;
  /** Who is in the way: a line that qemu-img has not. */
  readonly holder?: string | undefined;
  /** What was written may not be there: told of even if a signal came before. */
  readonly lost?: boolean;
  readonly cause?: unknown;
}

/** Ends a command with a message on stderr. */
export class Failure extends Error {
  override readonly name = 'Failure';
  readonly details: FailureDetails;

  constructor(message: string, details: FailureDetails = {}) {
    super(message, { cause: details.cause });
    this.details = details;
  }
}

/** For a failure to flush or to close what was written. Programming errors stay as they are. */
export function mayBeLost(cause: unknown): Failure {
  const { message, hint, holder } = asBlockError(cause);
  return new Failure(message, { hint, holder, lost: true, cause });
}

/** Whether a signal that came before is all that there is to say. */
export function isInterruption(error: unknown): boolean {
  return !(error instanceof Failure && error.details.lost);
}

/** A wrong command line (the messages marked † in the specification). */
export function misuse(message: string): Failure {
  return new Failure(message, { misuse: true });
}

/** The same error, if it is misuse: that of a command. */
export function withCommand(error: unknown, about: string): unknown {
  if (!(error instanceof Failure) || !error.details.misuse) return error;
  return new Failure(error.message, { ...error.details, about });
}

/** What was probably meant, as a hint of {@link FailureDetails}. */
export function suggestion(meant: string | undefined): string | undefined {
  return meant === undefined ? undefined : `Did you mean '${meant}'?`;
}

/** Ends a command because help was asked for. */
export class HelpRequest extends Error {
  override readonly name = 'HelpRequest';
  /** Help on a command; absent: on the program. Or the help itself. */
  readonly about: Command | string | undefined;
  /** What led here, if it was a mistake: the C library's sentence (measure, T-GEN-7). */
  readonly complaint: string | undefined;

  constructor(about?: Command | string, complaint?: string) {
    super('help was asked for');
    this.about = about;
    this.complaint = complaint;
  }
}

/** The same error with an exit status, if it has none. Programming errors and requests stay as they are. */
export function withStatus(error: unknown, status: number): unknown {
  if (error instanceof BlockError)
    return new Failure(error.message, { status, hint: error.hint, holder: error.holder, cause: error });
  if (!(error instanceof Failure) || error.details.misuse || error.details.status !== undefined) return error;
  return new Failure(error.message, { ...error.details, status });
}
