/** A listening socket that this process was started with (N-116), as systemd and libnbd pass it. */
import { BlockError } from '../../core/errors.ts';

const FIRST_FD = 3;

/** The process that started this one has taken the socket, and passed it on. */
export function adoptSocket(): void {
  process.env.LISTEN_PID = String(process.pid);
  process.env.LISTEN_FDS = '1';
}

/**
 * The descriptor, or undefined where none was passed to this process. The variables are unset, for children. Throws
 * BlockError.
 */
export function inheritedSocket(program: string): number | undefined {
  const { LISTEN_PID: pid, LISTEN_FDS: count } = process.env;
  if (pid === undefined || Number(pid) !== process.pid || !(Number(count) >= 1)) return undefined;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete process.env[name];
  if (Number(count) > 1) {
    throw new BlockError('EINVAL', `${program} does not support socket activation with LISTEN_FDS > 1`);
  }
  return FIRST_FD;
}
