/** `-L`: what a server exports (N-118). */
import type { ServerAddress } from '../../core/host-network.ts';
import { printable } from '../../nbd/client/handshake.ts';
import { TransmissionFlag } from '../../nbd/protocol.ts';
import { type InquiredExport, inquireExports } from '../../node/nbd/inquire.ts';
import { clientTls } from '../../node/nbd/tls-client.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import type { NbdArguments } from './arguments.ts';
import { portOf } from './serve-arguments.ts';

/** In the order of their bits. */
const FLAG_NAMES: readonly (readonly [number, string])[] = [
  [TransmissionFlag.readOnly, 'readonly'],
  [TransmissionFlag.sendFlush, 'flush'],
  [TransmissionFlag.sendFua, 'fua'],
  [TransmissionFlag.rotational, 'rotational'],
  [TransmissionFlag.sendTrim, 'trim'],
  [TransmissionFlag.sendWriteZeroes, 'zeroes'],
  [TransmissionFlag.sendDf, 'df'],
  [TransmissionFlag.canMultiConn, 'multi'],
  [TransmissionFlag.sendResize, 'resize'],
  [TransmissionFlag.sendCache, 'cache'],
  [TransmissionFlag.sendFastZero, 'fast-zero'],
  [TransmissionFlag.blockStatusPayload, 'block-status-payload'],
];

/** Resolves with the exit status. Throws Failure, BlockError. */
export async function listExports({ out, objects }: Context, { given }: NbdArguments): Promise<number> {
  const creds = given.get('tls-creds');
  const tls =
    creds === undefined
      ? undefined
      : clientTls(
          await objects.nbd.tlsCredentials(creds, 'client').catch((error: Error) => {
            throw new Failure(`Failed to get TLS creds: ${error.message}`, { cause: error });
          }),
        );
  const address = addressOf(given);
  const hostname = given.get('tls-hostname') ?? (address.type === 'inet' ? address.host : undefined);
  const exports = await inquireExports({
    address,
    ...(tls && { startTls: (stream) => tls.start(stream, hostname) }),
  });
  out.line(`exports available: ${exports.length}`);
  for (const each of exports) for (const line of linesOf(each)) out.line(line);
  return 0;
}

function addressOf(given: NbdArguments['given']): ServerAddress {
  const socket = given.get('socket');
  if (socket === undefined) {
    const host = given.get('bind') ?? 'localhost';
    return { type: 'inet', host, port: portOf(given.get('port'), host) };
  }
  if (!socket.startsWith('/')) throw new Failure('socket path must be absolute');
  return { type: 'unix', path: socket };
}

function linesOf({ name, description, size, flags, blockSize, contexts }: InquiredExport): string[] {
  const words = FLAG_NAMES.filter(([bit]) => (flags & bit) !== 0).map(([, word]) => `${word} `);
  const told = (flags & TransmissionFlag.hasFlags) !== 0;
  return [
    ` export: '${printable(name)}'`,
    ...(description === undefined ? [] : [`  description: ${printable(description)}`]),
    `  size:  ${size}`,
    ...(told ? [`  flags: 0x${flags.toString(16)} ( ${words.join('')})`] : []),
    ...(blockSize === undefined
      ? []
      : [
          `  min block: ${blockSize.minimum}`,
          `  opt block: ${blockSize.preferred}`,
          `  max block: ${blockSize.maximum}`,
        ]),
    ...(contexts.length === 0
      ? []
      : [`  available meta contexts: ${contexts.length}`, ...contexts.map((each) => `   ${printable(each)}`)]),
  ];
}
