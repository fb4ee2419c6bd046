/** Whether a request may be done, and the words of the refusal (N-40 to N-49, N-66, N-67, N-72). */
import { Command, CommandFlag, PAYLOAD_MAX, TransmissionFlag } from '../protocol.ts';
import type { Request } from '../wire.ts';
import type { Negotiated } from './handshake.ts';
import { isStatusPayloadLength } from './status-payload.ts';

export interface Refusal {
  readonly error: number;
  readonly text: string;
}

const EPERM = 1;
const EINVAL = 22;
const ENOSPC = 28;
const EOVERFLOW = 75;

/** Flags that are known, by command; FUA is accepted with all. */
const FLAGS: ReadonlyMap<number, number> = new Map([
  [Command.read, CommandFlag.df],
  [Command.writeZeroes, CommandFlag.noHole | CommandFlag.fastZero],
  [Command.blockStatus, CommandFlag.reqOne],
]);
const CHANGES: ReadonlySet<number> = new Set([Command.write, Command.trim, Command.writeZeroes]);
/** As messages call them. */
const NAMES: ReadonlyMap<number, string> = new Map([
  [Command.read, 'read'],
  [Command.write, 'write'],
  [Command.flush, 'flush'],
  [Command.trim, 'trim'],
  [Command.cache, 'cache'],
  [Command.writeZeroes, 'write zeroes'],
  [Command.blockStatus, 'block status'],
]);

/** Undefined: it may be done. A length of 0 is a success without work, but for block status. */
export function checkRequest(request: Request, negotiated: Negotiated): Refusal | undefined {
  const { command, offset, length } = request;
  if (!NAMES.has(command)) return { error: EINVAL, text: `invalid request type (${command}) received` };
  const flags = checkFlags(request, negotiated);
  if (flags !== undefined) return flags;
  if (command === Command.flush) return undefined;
  const readOnly = (negotiated.export.flags & TransmissionFlag.readOnly) !== 0;
  if (readOnly && CHANGES.has(command)) return { error: EPERM, text: 'Export is read-only' };
  if (length > PAYLOAD_MAX && (command === Command.read || command === Command.write)) {
    const error = command === Command.read && negotiated.structured ? EOVERFLOW : EINVAL;
    // The blank is in what other servers print.
    return { error, text: `len (${request.hugeLength ?? length} ) is larger than max len (${PAYLOAD_MAX})` };
  }
  const payload = command === Command.blockStatus && (request.flags & CommandFlag.payloadLength) !== 0;
  if (!(offset + (payload ? 0 : length) <= negotiated.export.size)) {
    const error = command === Command.write || command === Command.writeZeroes ? ENOSPC : EINVAL;
    const from = request.hugeOffset ?? offset;
    const text = `operation past EOF; From: ${from}, Len: ${request.hugeLength ?? length}, Size: ${negotiated.export.size}`;
    return { error, text };
  }
  if (command === Command.blockStatus) return checkStatus(length, payload, negotiated);
  return undefined;
}

function checkFlags({ flags, command }: Request, { structured, extended, contexts }: Negotiated): Refusal | undefined {
  const { df, fua, payloadLength } = CommandFlag;
  const mayHavePayload = command === Command.write || (command === Command.blockStatus && contexts.length > 0);
  const payload = extended && mayHavePayload ? payloadLength : 0;
  const unknown = flags & ~((FLAGS.get(command) ?? 0) | fua | payload);
  if (unknown !== 0 || ((flags & df) !== 0 && !structured)) {
    const text = `unsupported flags for command ${NAMES.get(command)} (got 0x${flags.toString(16)})`;
    return { error: EINVAL, text };
  }
  if (extended && command === Command.write && (flags & payloadLength) === 0) {
    return { error: EINVAL, text: 'a write needs the payload flag under extended headers' };
  }
  return undefined;
}

function checkStatus(length: number, payload: boolean, { structured, contexts }: Negotiated): Refusal | undefined {
  if (length === 0) return { error: EINVAL, text: 'need non-zero length' };
  if (!structured || contexts.length === 0) {
    return { error: EINVAL, text: 'CMD_BLOCK_STATUS not negotiated' };
  }
  if (payload && !isStatusPayloadLength(length, contexts.length)) {
    return { error: EINVAL, text: `a payload of ${length} bytes is none for block status` };
  }
  return undefined;
}
