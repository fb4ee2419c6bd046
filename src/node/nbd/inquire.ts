/** A conversation with a server that ends before transmission: what it exports (N-118). */
import { addContext, BlockError, errorText } from '../../core/errors.ts';
import { addressText, type ServerAddress } from '../../nbd/client/address.ts';
import { Conversation, type StartTls } from '../../nbd/client/conversation.ts';
import { describeExport, type ExportDescription } from '../../nbd/client/describe-export.ts';
import { listExports } from '../../nbd/client/handshake.ts';
import { connectSocket } from './connect.ts';

export interface InquiredExport extends ExportDescription {
  readonly name: string;
}

export interface InquiryOptions {
  readonly address: ServerAddress;
  /** Absent: without TLS. */
  readonly startTls?: StartTls | undefined;
}

/** So long the whole conversation may take, milliseconds. */
const LONGEST_MS = 30_000;

/** All exports that a server lists, and what it tells of each. Throws BlockError. */
export async function inquireExports({ address, startTls }: InquiryOptions): Promise<InquiredExport[]> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new BlockError('ETIMEDOUT', errorText('ETIMEDOUT'))), LONGEST_MS);
  const { signal } = late;
  try {
    const stream = await connectSocket(address, { signal }).catch((error: unknown) => {
      throw addContext(`Failed to connect to '${addressText(address)}'`, error);
    });
    return await inquire(new Conversation(stream, { startTls, signal }), startTls !== undefined);
  } finally {
    clearTimeout(timer);
  }
}

async function inquire(talk: Conversation, tls: boolean): Promise<InquiredExport[]> {
  let failure: unknown;
  try {
    const found: InquiredExport[] = [];
    for (const { name, description } of await talk.run(listExports(tls))) {
      const told = await talk.run(describeExport(name));
      if (told === undefined) continue;
      found.push({ ...told, name, description: told.description ?? (description === '' ? undefined : description) });
    }
    return found;
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    talk.end(failure);
  }
}
