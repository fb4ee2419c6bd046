/** `--fork`: a child of its own session serves; this process ends when clients can connect (N-113). */
import { type StdioOptions, spawn } from 'node:child_process';
import { adoptSocket, inheritedSocket } from '../../node/nbd/activation.ts';

/** Set for the child, to what it is given beside standard streams. */
const MARK = 'DISKWRIGHT_NBD_FORKED';
const WITH_SOCKET = 'socket';

/** Whether this process is such a child. The mark goes no further. */
export function isForked(): boolean {
  const mark = process.env[MARK];
  delete process.env[MARK];
  if (mark === undefined || process.send === undefined) return false;
  if (mark === WITH_SOCKET) adoptSocket();
  process.on('disconnect', endAlone);
  return true;
}

/** Who waits for the server is gone before it is there: so nobody knows of it. */
function endAlone(): void {
  process.kill(process.pid, 'SIGTERM');
}

/** The child tells that it is ready. What it has to say after that nobody reads. */
export function reportReady(): void {
  process.off('disconnect', endAlone);
  process.send?.('ready', () => process.disconnect());
}

/**
 * Starts this very program, which messages call `name`, again as a child; resolves with the exit status when it is ready or
 * has failed. Throws BlockError.
 */
export function forkServer(name: string, words: readonly string[]): Promise<number> {
  const [program, script = ''] = process.argv;
  const socket = inheritedSocket(name);
  const stdio: StdioOptions = ['ignore', 'ignore', 'pipe', socket ?? 'ignore', 'ipc'];
  const child = spawn(program ?? process.execPath, [...process.execArgv, script, ...words], {
    detached: true,
    stdio,
    env: { ...process.env, [MARK]: socket === undefined ? 'nothing' : WITH_SOCKET },
  });
  child.stderr?.on('data', (bytes: Uint8Array) => process.stderr.write(bytes));
  return new Promise((resolve, reject) => {
    child.once('message', () => resolve(0));
    child.once('error', reject);
    // After all that it had to say.
    child.once('close', (status) => resolve(status === 0 || status === null ? 1 : status));
  });
}
