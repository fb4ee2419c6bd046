/**
 * What a disk may hold after a crash: for each byte the last value that was flushed, or one written since.
 * A recorded disk notes in its host's log what it was asked and what was confirmed; the check reads the notes.
 */

import type { DataFlags, ZeroFlags } from '../core/driver.ts';
import { differsAt } from './compare-bytes.ts';
import type { DiskUnderTest } from './disk-under-test.ts';
import type { SimHost } from './sim-host.ts';

type Change =
  | { readonly event: 'write'; readonly id: number; readonly offset: number; readonly data: Uint8Array }
  | { readonly event: 'zero'; readonly id: number; readonly offset: number; readonly length: number }
  | { readonly event: 'discard'; readonly id: number; readonly offset: number; readonly length: number }
  | { readonly event: 'resize'; readonly id: number; readonly from: number; readonly to: number };
type Note =
  | Change
  | { readonly event: 'done'; readonly id: number; readonly durable: boolean }
  | { readonly event: 'flush'; readonly id: number }
  | { readonly event: 'flushed'; readonly id: number };

/** The requests of a workload that are followed. */
export interface RecordedDisk<D extends DiskUnderTest = DiskUnderTest> {
  readonly disk: D;
  write(offset: number, data: Uint8Array, flags?: DataFlags): Promise<void>;
  writeZeroes(offset: number, length: number, flags?: ZeroFlags): Promise<void>;
  discard(offset: number, length: number): Promise<void>;
  truncate(length: number): Promise<void>;
  flush(): Promise<void>;
  /** Closing flushes (BL-CLOSE-2). */
  close(): Promise<void>;
}

/** The disk, and a record of what its user may rely on after a crash. */
export function recordDisk<D extends DiskUnderTest>(host: SimHost, disk: D): RecordedDisk<D> {
  let next = host.log.length;
  const note = (value: Note) => host.note(value);
  const change = async (value: Change, durable: boolean, run: () => Promise<void>) => {
    note(value);
    await run();
    note({ event: 'done', id: value.id, durable });
  };
  const flush = async (run: () => Promise<void>) => {
    const id = next++;
    note({ event: 'flush', id });
    await run();
    note({ event: 'flushed', id });
  };
  return {
    disk,
    write: (offset, data, flags) =>
      change({ event: 'write', id: next++, offset, data: data.slice() }, flags?.fua === true, () =>
        disk.write(offset, data, flags),
      ),
    writeZeroes: (offset, length, flags) =>
      change({ event: 'zero', id: next++, offset, length }, flags?.fua === true, () =>
        disk.writeZeroes(offset, length, flags),
      ),
    discard: (offset, length) =>
      change({ event: 'discard', id: next++, offset, length }, false, () => disk.discard(offset, length)),
    truncate: (length) =>
      change({ event: 'resize', id: next++, from: disk.length, to: length }, false, () =>
        disk.resize(length, { shrink: true }),
      ),
    flush: () => flush(() => disk.flush()),
    close: () => flush(() => disk.close()),
  };
}

/** Changes in order; those that are certainly there are marked. */
interface Told {
  readonly change: Change;
  readonly durable: boolean;
}

function told(notes: readonly unknown[]): Told[] {
  const order: Change[] = [];
  const done = new Set<number>();
  const durable = new Set<number>();
  const covered = new Map<number, number[]>();
  for (const note of notes as readonly Note[]) {
    if (note.event === 'done') {
      done.add(note.id);
      if (note.durable) durable.add(note.id);
    } else if (note.event === 'flush') covered.set(note.id, [...done]);
    else if (note.event === 'flushed') for (const id of covered.get(note.id) ?? []) durable.add(id);
    else order.push(note);
  }
  return order.map((change) => ({ change, durable: durable.has(change.id) }));
}

/** The byte that `change` puts at `offset`; undefined: none. */
function byteAt(change: Change, offset: number): number | undefined {
  if (change.event === 'write') return change.data[offset - change.offset];
  if (change.event === 'resize') return offset >= change.to && offset < change.from ? 0 : undefined;
  return offset >= change.offset && offset < change.offset + change.length ? 0 : undefined;
}

/**
 * Throws unless `disk` holds what the notes of a crash point allow. `initial`: its content before the workload, durable;
 * beyond it zeroes. Changes of one place must not have been under way at the same time.
 */
export async function checkDurability(
  disk: DiskUnderTest,
  notes: readonly unknown[],
  initial: Uint8Array,
): Promise<void> {
  const changes = told(notes);
  let lengths = [initial.length];
  for (const { change, durable } of changes) {
    if (change.event === 'resize') lengths = durable ? [change.to] : [...lengths, change.to];
  }
  if (!lengths.includes(disk.length)) {
    throw new Error(`the disk is ${disk.length} bytes long instead of ${lengths.join(' or ')}`);
  }
  const content = await disk.read(0, disk.length);
  const expected = new Uint8Array(disk.length);
  expected.set(initial.subarray(0, disk.length));
  const discarded = new Uint8Array(disk.length);
  for (const { change, durable } of changes) if (durable) applyDurable(change, expected, discarded);
  const flushed = differsAt(content, expected);
  if (flushed < 0) return;
  let since: Change[] = [];
  for (let at = flushed, until = flushed; at < content.length; at++) {
    // Up to the next edge of a change the same ones reach each byte.
    if (at >= until) [since, until] = [changesSince(changes, at), nextEdge(changes, at)];
    const found = content[at];
    if (found === expected[at] || (found === 0 && discarded[at] === 1)) continue;
    if (since.some((change) => byteAt(change, at) === found)) continue;
    throw new Error(`byte ${at} is ${found}; flushed was ${expected[at]}, and nothing since wrote that there`);
  }
}

/** Changes of this byte after the last durable one of it. */
function changesSince(changes: readonly Told[], at: number): Change[] {
  const here = changes.filter(({ change }) => byteAt(change, at) !== undefined);
  const last = here.findLastIndex(({ durable }) => durable);
  return here.slice(last + 1).map(({ change }) => change);
}

/** Where the next change begins or ends behind `at`. */
function nextEdge(changes: readonly Told[], at: number): number {
  const edges = changes.flatMap(({ change }) => {
    if (change.event === 'resize') return [change.to, change.from];
    return [change.offset, change.offset + (change.event === 'write' ? change.data.length : change.length)];
  });
  return Math.min(...edges.filter((edge) => edge > at));
}

function applyDurable(change: Change, expected: Uint8Array, discarded: Uint8Array): void {
  if (change.event === 'write') {
    const room = Math.max(0, expected.length - change.offset);
    expected.set(change.data.subarray(0, room), Math.min(change.offset, expected.length));
    discarded.fill(0, change.offset, change.offset + change.data.length);
  } else if (change.event === 'zero') expected.fill(0, change.offset, change.offset + change.length);
  else if (change.event === 'discard') discarded.fill(1, change.offset, change.offset + change.length);
  else if (change.to < change.from) expected.fill(0, change.to, change.from);
}
