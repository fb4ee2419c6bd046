/** A conversation with a server that ends before transmission: what it exports (N-118). */
import { asBlockError, BlockError, errorText } from '../../core/errors.ts';
import type { ServerAddress } from '../../core/host-network.ts';
import { addressText } from '../../nbd/client/address.ts';
import { Conversation, type StartTls } from '../../nbd/client/conversation.ts';
import { askStructured, describeExport, type ExportDescription } from '../../nbd/client/describe-export.ts';
import { listExports } from '../../nbd/client/handshake.ts';
import { connectSocket } from './connect.ts';

export interface InquiredExport extends ExportDescription {
  readonly name: string;
}

export interface InquiryOptions {
  readonly address: ServerAddress;
  /** The client's side of TLS; absent: without TLS. */
  readonly startTls?: StartTls | undefined;
}

/** So long it may take, milliseconds. */
const INQUIRY_MS = 30_000;

/** All exports that a server lists, and what it tells of each. Throws BlockError. */
export async function inquireExports({ address, startTls }: InquiryOptions): Promise<InquiredExport[]> {
  const signal = AbortSignal.timeout(INQUIRY_MS);
  try {
    const stream = await connectSocket(address, { signal }).catch((cause: unknown) => {
      const error = asBlockError(cause);
      throw new BlockError(error.code, `Failed to connect to '${addressText(address)}': ${error.message}`, { cause });
    });
    const talk = new Conversation(stream, { startTls, signal });
    return await inquire(talk, startTls !== undefined).then(
      (found) => {
        talk.end();
        return found;
      },
      (error: unknown) => {
        talk.end(error);
        throw error;
      },
    );
  } catch (error) {
    throw signal.aborted ? new BlockError('ETIMEDOUT', errorText('ETIMEDOUT'), { cause: error }) : error;
  }
}

async function inquire(talk: Conversation, tls: boolean): Promise<InquiredExport[]> {
  const found: InquiredExport[] = [];
  const listed = await talk.run(listExports(tls));
  const structured = await talk.run(askStructured());
  for (const { name, description } of listed) {
    const told = await talk.run(describeExport(name, structured));
    if (told === undefined) continue;
    found.push({ ...told, name, description: told.description ?? (description === '' ? undefined : description) });
  }
  return found;
}
