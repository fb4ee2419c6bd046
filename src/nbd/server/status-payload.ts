/** The payload of BLOCK_STATUS under extended headers: how much is asked, and which contexts (N-64). */
import { viewOf } from '../../bytes/big-endian.ts';
import { readLength } from '../wire.ts';
import type { Refusal } from './check-request.ts';
import type { ChosenContext } from './status.ts';

const EINVAL = 22;
const LENGTH_BYTES = 8;
const ID_BYTES = 4;

/** Of `contexts`, those whose ids are there, or why the request is refused. `left`: bytes to the end of the export. */
export function parseStatusPayload(
  payload: Uint8Array,
  contexts: readonly ChosenContext[],
  left: number,
): { readonly length: number; readonly contexts: readonly ChosenContext[] } | Refusal {
  const view = viewOf(payload);
  const length = readLength(view, 0);
  if (length === 0) return refusal('need non-zero length');
  if (!(length <= left)) return refusal('the length in the payload reaches past the end');
  const chosen: ChosenContext[] = [];
  for (let at = LENGTH_BYTES; at < payload.length; at += ID_BYTES) {
    const id = view.getUint32(at);
    const found = contexts.find((context) => context.id === id);
    if (found === undefined) return refusal(`no context has the id ${id}`);
    if (chosen.includes(found)) return refusal(`the id ${id} is there twice`);
    chosen.push(found);
  }
  return { length, contexts: chosen };
}

/** Whether a payload can have this length: the length that is asked for, and one id or more, none of them twice. */
export function isStatusPayloadLength(length: number, contexts: number): boolean {
  const ids = (length - LENGTH_BYTES) / ID_BYTES;
  return Number.isInteger(ids) && ids >= 1 && ids <= contexts;
}

function refusal(text: string): Refusal {
  return { error: EINVAL, text };
}
