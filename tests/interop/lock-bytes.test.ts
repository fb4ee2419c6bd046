/** Which bytes of a file carry locks, ours and qemu-io's, and who is said to hold them (BL-PERM-7, T-GEN-10). */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import type { OpenOptions } from '../../src/core/disk.ts';
import { BlockError } from '../../src/core/errors.ts';
import type { Graph } from '../../src/core/graph.ts';
import type { NestedOptions } from '../../src/core/options.ts';
import { nodeHost } from '../../src/node/host.ts';
import { lockFileKey, parseLockLines } from '../../src/node/lock-holder.ts';
import { graphOn } from '../support/sim-disks.ts';
import { inFolder, peersMissing, qemuImg, qemuImgOk, RunningQemuIo, skipNote } from './peer.ts';

function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function lockLines(path: string) {
  try {
    return parseLockLines(readFileSync(path, 'latin1'));
  } catch {
    return [];
  }
}

/** The locked bytes of a file by the process that holds them; each test has one holder per process. */
function lockedBytes(path: string): Map<number, number[]> {
  const { dev, ino } = statSync(path, { bigint: true });
  const key = lockFileKey(dev, ino);
  const found = new Map<number, number[]>();
  for (const pid of listed('/proc').filter((name) => /^\d+$/.test(name))) {
    const bytes = listed(`/proc/${pid}/fdinfo`)
      .flatMap((fd) => lockLines(`/proc/${pid}/fdinfo/${fd}`))
      .filter(({ file }) => file === key)
      .flatMap(({ first, last }) => Array.from({ length: last - first + 1 }, (_, index) => first + index));
    if (bytes.length > 0)
      found.set(
        Number(pid),
        bytes.sort((a, b) => a - b),
      );
  }
  return found;
}

/** The error that `opening` fails with. */
async function refusal(opening: Promise<unknown>): Promise<Pick<BlockError, 'code' | 'message' | 'hint' | 'holder'>> {
  const error: unknown = await opening.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof BlockError)) throw new Error(`not refused: ${error}`);
  const { code, message, hint, holder } = error;
  return { code, message, hint, holder };
}

const hint = (path: string) => `Is another process using the image [${path}]?`;

async function withImage(format: 'raw' | 'vdi', work: (path: string, graph: Graph) => Promise<void>): Promise<void> {
  await inFolder(async (folder) => {
    const path = join(folder, `disk.${format}`);
    qemuImgOk('create', '-q', '-f', format, path, '4M');
    const graph = graphOn(nodeHost());
    await work(path, graph);
    expect(graph.nodes()).toEqual([]);
    expect([...lockedBytes(path)]).toEqual([]);
  });
}

/** Locks of open files are listed in /proc on Linux only. */
const missing = process.platform === 'linux' ? peersMissing : 'not Linux';

describe.skipIf(missing !== undefined)(`locked bytes${skipNote}`, () => {
  test.each<['raw' | 'vdi', string[], number[]]>([
    ['raw', [], [100, 101]],
    ['raw', ['-r'], [100]],
    ['raw', ['-r', '-U'], [100]],
    ['vdi', [], [100, 101, 103, 201, 203]],
    ['vdi', ['-r'], [100, 201, 203]],
    ['vdi', ['-r', '-U'], [100]],
  ])('of qemu-io, %s %j: %j', async (format, flags, bytes) => {
    await withImage(format, async (path) => {
      const other = await RunningQemuIo.open(format, path, ...flags);
      expect([...lockedBytes(path).values()]).toEqual([bytes]);
      await other.close();
    });
  });

  test.each<['raw' | 'vdi', OpenOptions, number[]]>([
    // A writer of ours lets nobody else write to a plain file either.
    ['raw', { writable: true }, [100, 101, 201, 203]],
    ['raw', {}, [100]],
    ['raw', { forceShare: true }, [100]],
    ['vdi', { writable: true }, [100, 101, 103, 201, 203]],
    ['vdi', {}, [100, 201, 203]],
    ['vdi', { forceShare: true }, [100]],
    ['vdi', { noIO: true }, [201, 203]],
  ])('of ours, %s %j: %j', async (format, options, bytes) => {
    await withImage(format, async (path, graph) => {
      const disk = await graph.open(path, { format, ...options });
      expect([...lockedBytes(path)]).toEqual([[process.pid, bytes]]);
      await disk.close();
    });
  });

  test('none with locking=off', async () => {
    await withImage('vdi', async (path, graph) => {
      const options: NestedOptions = { driver: 'vdi', file: { driver: 'file', filename: path, locking: 'off' } };
      const other = await RunningQemuIo.open('vdi', path);
      const disk = await graph.open(options, { writable: true });
      expect([...lockedBytes(path).keys()]).not.toContain(process.pid);
      await disk.close();
      await other.close();
    });
  });
});

describe.skipIf(missing !== undefined)(`who is in the way${skipNote}`, () => {
  test('qemu-io, by name and process', async () => {
    await withImage('vdi', async (path, graph) => {
      const other = await RunningQemuIo.open('vdi', path);
      const [pid] = lockedBytes(path).keys();
      const holder = `It is used by qemu-io (process ${pid}).`;
      expect(await refusal(graph.open(path, { format: 'vdi', writable: true }))).toEqual({
        code: 'EAGAIN',
        message: 'Failed to get "write" lock',
        hint: hint(path),
        holder,
      });
      expect(await refusal(graph.open(path, { format: 'vdi' }))).toEqual({
        code: 'EAGAIN',
        message: 'Failed to get shared "write" lock',
        hint: hint(path),
        holder,
      });
      await other.close();
    });
  });

  test.each([[[]], [['-r']]])('a new image does not take the place of one that qemu-io %j has open', async (flags) => {
    const message = 'Failed to get "write" lock';
    await withImage('vdi', async (path, graph) => {
      const other = await RunningQemuIo.open('vdi', path, ...flags);
      const before = readFileSync(path);
      const peer = qemuImg('create', '-q', '-f', 'vdi', path, '8M');
      expect(peer.stderr).toBe(`qemu-img: ${path}: ${message}\n${hint(path)}\n`);
      expect(await refusal(createImage(graph, { filename: path, format: 'vdi', size: 8 << 20 }))).toMatchObject({
        code: 'EAGAIN',
        message,
        hint: hint(path),
      });
      expect(readFileSync(path).equals(before)).toBe(true);
      await other.close();
    });
  });

  test('while we write an image, qemu-img may neither make it anew nor resize it', async () => {
    await withImage('raw', async (path, graph) => {
      const disk = await graph.open(path, { format: 'raw', writable: true });
      const text = `Failed to get "write" lock\n${hint(path)}\n`;
      expect(qemuImg('create', '-q', '-f', 'raw', path, '8M').stderr).toBe(`qemu-img: ${path}: ${text}`);
      expect(qemuImg('resize', '-q', '-f', 'raw', path, '8M').stderr).toBe(
        `qemu-img: Could not open '${path}': ${text}`,
      );
      expect(disk.length).toBe(4 << 20);
      await disk.close();
    });
  });

  test('another graph in this process, in both directions', async () => {
    await withImage('vdi', async (path, graph) => {
      const second = graphOn(nodeHost());
      const writer = await graph.open(path, { format: 'vdi', writable: true });
      const ours = 'It is used by this program itself.';
      expect(await refusal(second.open(path, { format: 'vdi', writable: true }))).toEqual({
        code: 'EAGAIN',
        message: 'Failed to get "write" lock',
        hint: hint(path),
        holder: ours,
      });
      expect(await refusal(second.open(path, { format: 'vdi' }))).toMatchObject({
        message: 'Failed to get shared "write" lock',
        holder: ours,
      });
      await (await second.open(path, { format: 'vdi', forceShare: true })).close();
      await writer.close();
      const reader = await second.open(path, { format: 'vdi' });
      const another = await graph.open(path, { format: 'vdi' });
      await another.close();
      expect(await refusal(graph.open(path, { format: 'vdi', writable: true }))).toMatchObject({
        message: 'Failed to get "write" lock',
      });
      await reader.close();
      expect(second.nodes()).toEqual([]);
    });
  });
});
