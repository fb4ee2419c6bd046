/**
 * Finds who holds an open-file-description lock. The kernel does not say (such locks belong to no process), but lists
 * the locks of every open file in /proc/PID/fdinfo/FD, for the processes we may look into.
 */
import { readdirSync, readFileSync } from 'node:fs';
import type { LockHolder } from '../core/host.ts';

/** How long to look at most; machines can have very many processes. */
const TIME_LIMIT_MS = 500;

/** A `lock:` line, e.g. `lock:	1: OFDLCK ADVISORY  READ -1 fe:00:2149148 100 101`. */
export interface LockLine {
  readonly write: boolean;
  /** Device and inode as the kernel writes them. */
  readonly file: string;
  readonly first: number;
  /** Inclusive; Infinity for "to the end". */
  readonly last: number;
}

const LINE = /^lock:\s+\d+: OFDLCK\s+ADVISORY\s+(READ|WRITE)\s+-?\d+\s+([0-9a-f]+:[0-9a-f]+:\d+)\s+(\d+)\s+(\d+|EOF)$/;

/** The open-file-description locks that a fdinfo file lists. */
export function parseLockLines(fdinfo: string): LockLine[] {
  const locks: LockLine[] = [];
  for (const line of fdinfo.split('\n')) {
    const match = LINE.exec(line);
    if (!match) continue;
    const [, mode, file = '', first, last] = match;
    locks.push({
      write: mode === 'WRITE',
      file,
      first: Number(first),
      last: last === 'EOF' ? Number.POSITIVE_INFINITY : Number(last),
    });
  }
  return locks;
}

/** Device and inode as lock lines have them, from a stat result. */
export function lockFileKey(device: bigint, inode: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n);
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffffff00n);
  const hex = (number: bigint) => number.toString(16).padStart(2, '0');
  return `${hex(major)}:${hex(minor)}:${inode}`;
}

export interface LockSearch {
  /** Our own descriptor, which is passed over. */
  readonly fd: number;
  /** As {@link lockFileKey} gives it. Our own lock lines, if there are any, are believed instead. */
  readonly file: string;
  readonly offset: number;
  readonly length: number;
}

/** A process with a lock that overlaps the range; undefined when none is found in time. */
export function findLockHolder(search: LockSearch, now: () => number): LockHolder | undefined {
  const deadline = now() + TIME_LIMIT_MS;
  // On btrfs and overlays stat's device differs from the one in lock lines: our own lines have the right one.
  const file = parseLockLines(readOrEmpty(`/proc/self/fdinfo/${search.fd}`))[0]?.file ?? search.file;
  const last = search.offset + search.length - 1;
  const inTheWay = (lock: LockLine) => lock.file === file && lock.first <= last && lock.last >= search.offset;
  for (const pid of newestProcesses()) {
    for (const fd of namesIn(`/proc/${pid}/fdinfo`)) {
      if (now() > deadline) return undefined;
      if (Number(pid) === process.pid && Number(fd) === search.fd) continue;
      if (!parseLockLines(readOrEmpty(`/proc/${pid}/fdinfo/${fd}`)).some(inTheWay)) continue;
      const own = Number(pid) === process.pid;
      return { pid: Number(pid), command: readOrEmpty(`/proc/${pid}/comm`).trimEnd(), ...(own && { own }) };
    }
  }
  return undefined;
}

/** Programs that use images were mostly started after the machine's own. */
function newestProcesses(): string[] {
  return namesIn('/proc')
    .filter((name) => /^\d+$/.test(name))
    .sort((a, b) => Number(b) - Number(a));
}

/** Processes and descriptors come and go while we look, and some are not ours to see. */
function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

function namesIn(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
