/** What is written before what, and is durable before what (Q-ORD, Q-HDR-9), by events and requests to the image file. */
import { describe, expect, test } from 'vitest';
import {
  DATA,
  firstL2,
  makeImage,
  openDisk,
  openTrail,
  patchWords,
  some,
  useDisk,
  viewImage,
  wordsAt,
} from '../../../tests/support/qcow2-image.ts';
import { BlockError } from '../../core/errors.ts';
import { blkdebugOf } from '../../filters/blkdebug/control.ts';
import { SimHost } from '../../testing/index.ts';

const SMALL = { cluster_size: 512 };

/** Whether these come one after the other, with others between. */
function inOrder(trail: readonly string[], ...names: readonly string[]): boolean {
  let at = -1;
  for (const name of names) {
    at = trail.indexOf(name, at + 1);
    if (at < 0) return false;
  }
  return true;
}

describe('the image file', () => {
  test('Q-ORD-2, Q-ORD-5: counts and data are durable before L2 entries name them', async () => {
    const host = await makeImage(SMALL);
    const { disk, during } = await openTrail(host);
    await disk.write(0, some(1, 512));
    await disk.flush();
    const trail = await during(async () => {
      await disk.write(512, some(2, 512));
      await disk.flush();
    });
    expect(trail.filter((each) => ['refblock_update_part', 'l2_update', 'flush', 'write_aio'].includes(each))).toEqual([
      'write_aio',
      'refblock_update_part',
      'flush',
      'l2_update',
      'flush',
    ]);
    await disk.close();
  });

  test('Q-ORD-2: so are data in a data file', async () => {
    const host = await makeImage({ cluster_size: 512, data_file: DATA }, { host: new SimHost() });
    await useDisk(host, (disk) => disk.write(0, some(1, 512)));
    const from = host.log.length;
    await useDisk(host, async (disk) => {
      await disk.write(512, some(2, 512));
      await disk.flush();
    });
    const l2 = firstL2(host);
    const log = host.log.slice(from).flatMap((entry) => {
      if (entry.type === 'flush') return [`flush ${entry.path}`];
      if (entry.type !== 'change' || entry.change.kind !== 'write') return [];
      const isL2 = entry.path !== DATA && entry.change.offset === l2;
      return entry.path === DATA ? ['data'] : isL2 ? ['entry'] : [];
    });
    expect(inOrder(log, 'data', `flush ${DATA}`, 'entry')).toBe(true);
  });

  test('Q-ORD-3: a cluster that is given up is neither taken nor given back before that is durable', async () => {
    const host = await makeImage(SMALL);
    await useDisk(host, (disk) => disk.write(0, some(1, 512)));
    const { disk, during } = await openTrail(host);
    const [old] = wordsAt(host, firstL2(host));
    const before = await during(async () => {
      await disk.discard(0, 512);
      await disk.write(1024, some(2, 512));
    });
    expect(before).not.toContain('cluster_free');
    const trail = await during(() => disk.flush());
    expect(inOrder(trail, 'l2_update', 'flush', 'cluster_free', 'discard')).toBe(true);
    await disk.close();
    expect(wordsAt(host, firstL2(host) + 16)).not.toEqual([old]);
  });

  test('Q-ORD-4: neither cache waits for the other in a circle: both are written by one flush', async () => {
    const host = await makeImage(SMALL);
    await useDisk(host, (disk) => disk.write(0, some(1, 8 * 512)));
    const { disk, during } = await openTrail(host);
    const trail = await during(async () => {
      await disk.discard(0, 512);
      await disk.write(20 * 512, some(2, 512));
      await disk.discard(512, 512);
      await disk.write(21 * 512, some(3, 512));
      await disk.flush();
    });
    expect(trail.filter((each) => each === 'l2_update')).toHaveLength(1);
    await disk.close();
    expect([viewImage(host).problems, viewImage(host).leaks]).toEqual([[], []]);
  });

  test('Q-ORD-5: what could not be written is written by the next flush; flushes at one time share a pass', async () => {
    const host = await makeImage(SMALL);
    const { disk, during } = await openTrail(host);
    await disk.write(0, some(1, 512));
    await disk.flush();
    await disk.write(512, some(2, 512));
    const away = host.faults.inject({ operation: 'write', code: 'ENOSPC', times: 1 });
    await expect(disk.flush()).rejects.toMatchObject({ code: 'ENOSPC' });
    away();
    await disk.flush();
    await disk.write(1024, some(3, 512));
    const trail = await during(() => Promise.all([disk.flush(), disk.flush(), disk.flush()]));
    expect(trail.filter((each) => each === 'l2_update')).toHaveLength(1);
    await disk.close();
    expect(viewImage(host).entries.size).toBe(3);
    expect(viewImage(host).problems).toEqual([]);
  });

  test('Q-ORD-9: closing tells what could not be written back', async () => {
    const host = await makeImage(SMALL);
    const { disk } = await openTrail(host);
    await disk.write(0, some(1, 512));
    await disk.flush();
    await disk.write(512, some(2, 512));
    const away = host.faults.inject({ operation: 'write', code: 'ENOSPC' });
    const message = 'Failed to flush the L2 table cache: No space left on device';
    await expect(disk.close()).rejects.toMatchObject({ code: 'ENOSPC', message });
    away();
    expect(viewImage(host).problems).toEqual([]);
  });

  test.each(['read', 'write'] as const)(
    'Q-READ-1: a piece of a %s that fails while the next waits for its table is a failed request, not an unhandled rejection',
    async (kind) => {
      const host = await makeImage(SMALL);
      // Two L2 tables.
      await useDisk(host, (disk) => disk.write(0, some(1, 64 << 10)));
      const { disk } = await openTrail(host);
      await disk.read(0, 512);
      const node = disk.node.child('file')?.node;
      if (node === undefined) throw new Error('the filter is open');
      let load = () => {};
      const loaded = new Promise<void>((resolve) => {
        load = resolve;
      });
      blkdebugOf(node).engine.event = (name) => {
        if (name === `${kind}_aio`) return Promise.reject(new BlockError('EIO', 'Input/output error'));
        return name === 'l2_load' ? loaded : undefined;
      };
      const unhandled: unknown[] = [];
      const note = (reason: unknown) => void unhandled.push(reason);
      process.on('unhandledRejection', note);
      try {
        const request = kind === 'read' ? disk.read(31 << 10, 2048) : disk.write(31 << 10, some(2, 2048));
        const failed = expect(request).rejects.toMatchObject({ code: 'EIO' });
        // The event loop turns.
        await host.clock.sleep(1);
        load();
        await failed;
        expect(unhandled).toEqual([]);
      } finally {
        process.off('unhandledRejection', note);
      }
      await disk.close();
    },
  );

  test('Q-ORD-6, Q-EV-1: a new L2 table is durable before the L1 table names it', async () => {
    const host = await makeImage(SMALL);
    const { disk, during } = await openTrail(host);
    const trail = await during(() => disk.write(0, some(1, 512)));
    const names = ['refblock_update_part', 'flush', 'l2_alloc_write', 'flush', 'l1_update', 'write', 'flush'];
    expect(inOrder(trail, ...names)).toBe(true);
    await disk.close();
  });

  test('Q-ORD-8: with lazy refcounts the dirty bit is there before the first change, and counts wait', async () => {
    const host = await makeImage({ ...SMALL, lazy_refcounts: true });
    await useDisk(host, (disk) => disk.write(0, some(1, 512)));
    expect(wordsAt(host, 72)).toEqual([0n]);
    const { disk, during } = await openTrail(host);
    const trail = await during(async () => {
      await disk.write(512, some(2, 512));
      await disk.flush();
    });
    expect(trail).not.toContain('refblock_update_part');
    expect(inOrder(trail, 'write', 'flush', 'l2_update')).toBe(true);
    expect(wordsAt(host, 72)).toEqual([1n]);
    await disk.close();
    expect(wordsAt(host, 72)).toEqual([0n]);
    expect([viewImage(host).problems, viewImage(host).leaks]).toEqual([[], []]);
  });

  test('Q-FEAT-3: a writer repairs a dirty image first, a reader leaves it', async () => {
    const host = await makeImage(SMALL);
    await useDisk(host, (disk) => disk.write(0, some(1, 3 * 512)));
    const block = Number(wordsAt(host, Number(wordsAt(host, 48)[0]))[0]);
    const [counts = 0n] = wordsAt(host, block + 8);
    await patchWords(host, block + 8, counts & ~0xffffn);
    await patchWords(host, 72, 1n);
    await (await openDisk(host, {}, { writable: false })).close();
    expect(wordsAt(host, 72)).toEqual([1n]);
    expect(host.warnings).toEqual([]);
    await (await openDisk(host)).close();
    expect(host.warnings).toEqual([
      'ERROR cluster 7 refcount=0 reference=1',
      'Rebuilding refcount structure',
      'Repairing cluster 1 refcount=1 reference=0',
      'Repairing cluster 2 refcount=1 reference=0',
    ]);
    expect(wordsAt(host, 72)).toEqual([0n]);
    expect([viewImage(host).problems, viewImage(host).leaks]).toEqual([[], []]);
  });

  test('Q-FEAT-3: what cannot be repaired cannot be opened for writing', async () => {
    const host = await makeImage(SMALL);
    await patchWords(host, 72, 1n);
    host.faults.inject({ operation: 'write', code: 'EIO' });
    await expect(openDisk(host)).rejects.toThrow('Could not repair dirty image: Input/output error');
  });

  test('Q-HDR-9: parts of the header are written by themselves, each durable', async () => {
    const host = await makeImage(SMALL, { host: new SimHost() });
    const from = host.log.length;
    await useDisk(host, (disk) => disk.resize(4 << 20));
    const parts = host.log.slice(from).flatMap((entry, i, log) => {
      if (entry.type !== 'change' || entry.change.kind !== 'write' || entry.change.offset >= 512) return [];
      return [[entry.change.offset, entry.change.data.length, log[i + 1]?.type]];
    });
    expect(parts).toContainEqual([36, 12, 'flush']);
    expect(parts.at(-1)).toEqual([24, 8, 'flush']);
  });
});
