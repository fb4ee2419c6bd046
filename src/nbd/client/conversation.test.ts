import { expect, test } from 'vitest';
import { streamPair } from '../../../tests/support/nbd-client.ts';
import { Conversation } from './conversation.ts';
import type { Steps } from './handshake.ts';

function* taking(...pieces: readonly number[]): Steps<number> {
  for (const bytes of pieces) yield { kind: 'need', bytes };
  return pieces.length;
}

test('a server may say 64 MiB in a handshake; nothing more is waited for (N-134)', async () => {
  const talk = new Conversation(streamPair()[0], { startTls: undefined, signal: undefined });
  talk.input.push(new Uint8Array(2 ** 26));
  expect(await talk.run(taking(2 ** 25, 2 ** 25))).toBe(2);
  await expect(talk.run(taking(1))).rejects.toThrow(
    /^The server said more than 67108864 bytes before it was asked for data$/,
  );
});
