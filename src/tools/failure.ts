/** How commands end early. */

export interface FailureDetails {
  /** Exit status. Default 1. */
  readonly status?: number;
  /** The command line was wrong: the `Try …` line follows the message (T-GEN-4). */
  readonly misuse?: boolean;
  /** A second line, with prefix. */
  readonly continuation?: string;
  /** A file, and perhaps a line in it, that the message is about: stands right after the program's name. */
  readonly place?: string;
  /** Lines that follow the message, without prefix. */
  readonly hint?: string | undefined;
}

/** Ends a command with a message on stderr. */
export class Failure extends Error {
  override readonly name = 'Failure';
  readonly details: FailureDetails;

  constructor(message: string, details: FailureDetails = {}) {
    super(message);
    this.details = details;
  }
}

/** A wrong command line (the messages marked † in the specification). */
export function misuse(message: string): Failure {
  return new Failure(message, { misuse: true });
}
