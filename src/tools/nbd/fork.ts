/** `--fork`: a child of its own session serves; this process ends when clients can connect (N-113). */
import { spawn } from 'node:child_process';

/** Set for the child. */
const MARK = 'DISKWRIGHT_NBD_FORKED';

/** Whether this process is such a child. The mark goes no further. */
export function isForked(): boolean {
  const marked = process.env[MARK] === '1' && process.send !== undefined;
  delete process.env[MARK];
  return marked;
}

/** The child tells that it is ready. What it has to say after that nobody reads. */
export function reportReady(): void {
  process.send?.('ready', () => process.disconnect());
}

/** Starts this very program again as a child; resolves with the exit status when it is ready or has failed. */
export function forkServer(words: readonly string[]): Promise<number> {
  const [program, script = ''] = process.argv;
  const child = spawn(program ?? process.execPath, [...process.execArgv, script, ...words], {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: { ...process.env, [MARK]: '1' },
  });
  child.stderr?.on('data', (bytes: Uint8Array) => process.stderr.write(bytes));
  return new Promise((resolve) => {
    child.once('message', () => resolve(0));
    child.once('error', () => resolve(1));
    // After all that it had to say.
    child.once('close', (status) => resolve(status === 0 || status === null ? 1 : status));
  });
}
