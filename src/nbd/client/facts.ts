/** What a client may ask of an export, from what was agreed on (N-131, N-138). */
import { BlockError } from '../../core/errors.ts';
import { Command, CommandFlag, PAYLOAD_MAX, TransmissionFlag } from '../protocol.ts';
import type { Agreement } from './handshake.ts';
import type { ClientRequest } from './pending.ts';

/** What a server said of its export. */
export interface ExportFacts {
  /** Bytes; a multiple of the minimum. */
  readonly size: number;
  readonly readOnly: boolean;
  /** Offsets and lengths of requests are multiples of it; a power of two. */
  readonly minimum: number;
  /** 0: not told. */
  readonly preferred: number;
  /** Longest read or write; a multiple of the minimum. */
  readonly maximum: number;
  readonly canFlush: boolean;
  readonly canTrim: boolean;
  readonly canWriteZeroes: boolean;
  readonly canFastZero: boolean;
  readonly canFua: boolean;
  readonly canCache: boolean;
  readonly canDf: boolean;
  readonly manyConnections: boolean;
}

export function exportFacts({ size, flags, blockSize }: Agreement): ExportFacts {
  const { minimum, preferred, maximum } = blockSize ?? { minimum: 1, preferred: 0, maximum: PAYLOAD_MAX };
  const has = (flag: number) => (flags & flag) !== 0;
  return {
    size: size - (size % minimum),
    readOnly: has(TransmissionFlag.readOnly),
    minimum,
    preferred,
    maximum: maximum - (maximum % minimum),
    canFlush: has(TransmissionFlag.sendFlush),
    canTrim: has(TransmissionFlag.sendTrim),
    canWriteZeroes: has(TransmissionFlag.sendWriteZeroes),
    canFastZero: has(TransmissionFlag.sendFastZero),
    canFua: has(TransmissionFlag.sendFua),
    canCache: has(TransmissionFlag.sendCache),
    canDf: has(TransmissionFlag.sendDf),
    manyConnections: has(TransmissionFlag.canMultiConn),
  };
}

const LOSSES = [
  ['canFlush', 'it no longer flushes'],
  ['canFua', 'it no longer offers FUA'],
  ['canTrim', 'it no longer trims'],
  ['canWriteZeroes', 'it no longer writes zeroes'],
  ['canFastZero', 'it no longer offers fast zeroes'],
] as const;

/** What makes a server that came back another one than it was (N-138); undefined: nothing. */
export function changeOf(before: Agreement, now: Agreement): string | undefined {
  const [old, other] = [exportFacts(before), exportFacts(now)];
  if (before.size !== now.size) return `the size is ${now.size}, it was ${before.size}`;
  if (old.readOnly !== other.readOnly) return other.readOnly ? 'it is read-only now' : 'it is no longer read-only';
  if (other.minimum > old.minimum) return `the minimum block size is ${other.minimum}, it was ${old.minimum}`;
  if (other.maximum < old.maximum) return `the maximum block size is ${other.maximum}, it was ${old.maximum}`;
  for (const [fact, text] of LOSSES) if (old[fact] && !other[fact]) return text;
  for (const name of before.contexts.keys()) {
    if (!now.contexts.has(name)) return `it no longer has the context '${name}'`;
  }
  return undefined;
}

const WRITING: ReadonlySet<number> = new Set([Command.write, Command.trim, Command.writeZeroes]);

/** Refuses what the server would: bounds, alignment, read-only, what it does not offer (N-131). Throws BlockError. */
export function checkStrictly(request: ClientRequest, facts: ExportFacts): void {
  const { command, flags, offset, length } = request;
  const refuse = (text: string) => new BlockError('EINVAL', text);
  if (WRITING.has(command) && facts.readOnly) throw new BlockError('EPERM', 'The export is read-only');
  const offered: Readonly<Record<number, boolean>> = {
    [Command.trim]: facts.canTrim,
    [Command.writeZeroes]: facts.canWriteZeroes,
    [Command.cache]: facts.canCache,
    [Command.flush]: facts.canFlush,
  };
  if (offered[command] === false) throw new BlockError('ENOTSUP', 'The server does not offer the command');
  const lacks = (flag: number, has: boolean) => (flags & flag) !== 0 && !has;
  if (lacks(CommandFlag.df, facts.canDf) || lacks(CommandFlag.fastZero, facts.canFastZero)) {
    throw new BlockError('ENOTSUP', 'The server does not offer the flag of the command');
  }
  if (lacks(CommandFlag.fua, facts.canFua)) throw new BlockError('ENOTSUP', 'The server does not offer FUA');
  if (command === Command.flush) return;
  if (!(offset >= 0 && length > 0 && Number.isSafeInteger(offset + length)))
    throw refuse('The request is empty or no range');
  if (offset + length > facts.size) {
    throw refuse(`The request ends at byte ${offset + length}, the export at ${facts.size}`);
  }
  if (offset % facts.minimum !== 0 || length % facts.minimum !== 0) {
    throw refuse(`The request is not aligned to ${facts.minimum} bytes`);
  }
  const carries = command === Command.read || command === Command.write;
  if (carries && length > facts.maximum) throw refuse(`The request is longer than ${facts.maximum} bytes`);
}
