/** A server from ready to stopped, for both commands that have one (N-81, N-112 to N-116). */
import type { Disk } from '../../core/disk.ts';
import type { Host } from '../../core/host.ts';
import type { ExportOptions } from '../../nbd/server/export.ts';
import { NbdServer, type NbdServerOptions } from '../../nbd/server/server.ts';
import { type ListenAddress, listen } from '../../node/nbd/listen.ts';
import { removePidFile, writePidFile } from '../../node/nbd/pid-file.ts';
import { stdioStream } from '../../node/nbd/stdio-stream.ts';
import { mayBeLost } from '../failure.ts';
import type { Messages } from '../output/stream.ts';

export interface ServedExport {
  readonly disk: Disk;
  readonly options: ExportOptions;
}

export interface ServerRun {
  readonly host: Host;
  readonly exports: readonly ServedExport[];
  readonly server: NbdServerOptions;
  readonly address: ListenAddress | { readonly kind: 'stdio' };
  /** Goes on when the last client has left. */
  readonly persistent: boolean;
  readonly pidFile?: string | undefined;
  /** None of them makes clients wait. */
  readonly messages: Messages;
  /** Aborted when the server is to stop. */
  readonly signal: AbortSignal;
  /** Clients can connect; `uriOf` tells where, by the export's name. */
  readonly ready?: (uriOf: (name: string) => string) => void;
}

/** Serves until it is stopped or, unless `persistent`, the last client has left. Throws BlockError. */
export async function runServer(run: ServerRun): Promise<void> {
  const { address, persistent, pidFile, messages, signal } = run;
  const server = new NbdServer(run.host, run.server);
  for (const { disk, options } of run.exports) server.addExport(disk, options);
  const stopped = new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve());
    if (!persistent || address.kind === 'stdio') server.onUnused = resolve;
    if (address.kind === 'stdio') server.onLastLeft = resolve;
  });
  let stopListening = async () => {};
  const noMoreHurry = await messages.hurry();
  try {
    if (address.kind === 'stdio') {
      if (pidFile !== undefined) writePidFile(pidFile);
      server.accept(stdioStream());
    } else {
      const listening = await listen(address, (stream) => server.accept(stream));
      stopListening = listening.close;
      if (pidFile !== undefined) writePidFile(pidFile);
      run.ready?.((name) => listening.uri(name, run.server.tls !== undefined));
    }
    await stopped;
  } finally {
    await stopListening();
    try {
      await server.close().catch((error: unknown) => Promise.reject(mayBeLost(error)));
    } finally {
      noMoreHurry();
      if (pidFile !== undefined) removePidFile(pidFile);
    }
  }
}
