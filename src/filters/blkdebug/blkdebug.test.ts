/** blkdebug in a graph: names, options, requests, breakpoints (BD rules). */
import { describe, expect, test } from 'vitest';
import { failure, ones, opened, suspendedAt, world } from '../../../tests/support/blkdebug.ts';
import { createImage } from '../../core/create.ts';
import { isSuspended, removeBreakpoint, resumeBreakpoint, setBreakpoint } from '../../core/debug.ts';
import { PERMISSION_NAMES } from '../../core/permissions.ts';
import { DRIVERS } from '../../drivers.ts';
import { blkdebugOf } from './control.ts';
import { EVENTS } from './events.ts';

const SIZE = 1 << 20;

describe('names', () => {
  test.each([
    ['blkdebug::/a.raw', 'blkdebug::/a.raw'],
    ['blkdebug:/rules:/a.raw', 'blkdebug:/rules:/a.raw'],
    ['blkdebug::blkdebug:/rules:/a.raw', 'blkdebug::blkdebug:/rules:/a.raw'],
  ])('BD-1, BD-52: %s', async (name, exact) => {
    const { graph } = await world({ '/rules': '[inject-error]\nevent = "none"\nerrno = "28"\n' });
    await using disk = await graph.open(name, { format: 'blkdebug' });
    expect(disk.filename).toBe(exact);
    expect(await failure(disk.read(0, 512))).toBe(name.includes('rules') ? 'ENOSPC' : 'done');
  });

  test('BD-1: both parts are required', async () => {
    const { graph } = await world();
    for (const name of ['blkdebug:', 'blkdebug:/a.raw']) {
      await expect(graph.open(name, { format: 'blkdebug' })).rejects.toMatchObject({
        code: 'EINVAL',
        message: 'blkdebug requires both config file and image path',
      });
    }
  });

  test("BD-2: a name without the prefix is the image's", async () => {
    const { graph } = await world();
    await using disk = await graph.open('/a.raw', { format: 'blkdebug' });
    expect([disk.format, disk.length, disk.filename]).toEqual(['blkdebug', SIZE, 'blkdebug::/a.raw']);
  });

  test('BD-54: the content of what has such a name is probed through it', async () => {
    const { graph } = await world({ '/rules': '[inject-error]\nevent = "none"\n' });
    await createImage(graph, { filename: '/a.vdi', format: 'vdi', options: { size: SIZE } });
    {
      await using disk = await graph.open('blkdebug::/a.vdi');
      expect(disk.format).toBe('vdi');
    }
    await expect(graph.open('blkdebug:/rules:/a.vdi')).rejects.toMatchObject({ code: 'EIO' });
  });

  test('BD-52: other options make it a json: name, as does a name that is too long', async () => {
    const { node, disk } = await opened({
      'inject-error': [{ event: 'none', errno: 28, sector: 8, once: true }],
    });
    expect(node.filename).toBe(
      'json:{"inject-error.0.once": true, "image": {"driver": "file", "filename": "/a.raw"}, "driver": "blkdebug", "inject-error.0.errno": 28, "inject-error.0.event": "none", "inject-error.0.sector": 8}',
    );
    await disk.close();
    const image = 'x'.repeat(4084);
    expect(blkdebugName('/', image)).toBe(`blkdebug:/:${image}`);
    expect(blkdebugName('//', image)).toBeUndefined();
  });
});

function blkdebugName(config: string, image: string): string | undefined {
  const driver = DRIVERS.find(({ name }) => name === 'blkdebug');
  if (driver?.kind !== 'filter') throw new Error('it is a filter');
  return driver.exactFilename?.({ config }, () => image);
}

describe('config files', () => {
  test('BD-11: one that cannot be read', async () => {
    const { graph } = await world({ '/large': new Uint8Array((1 << 20) + 1) });
    await expect(graph.open('blkdebug:/nope:/a.raw', { format: 'blkdebug' })).rejects.toMatchObject({
      code: 'ENOENT',
      message: 'Could not read blkdebug config file: No such file or directory',
    });
    await expect(opened({ config: '' })).rejects.toThrow('Could not read blkdebug config file');
    await expect(graph.open('blkdebug:/large:/a.raw', { format: 'blkdebug' })).rejects.toMatchObject({ code: 'EFBIG' });
    expect(graph.nodes()).toEqual([]);
  });

  test('BD-12: rules of the file come before those of options', async () => {
    const { graph } = await world({ '/rules': '[set-state]\nevent = "none"\n[inject-error]\nevent = "write_aio"\n' });
    const options = { config: '/rules', 'inject-error.0.event': 'none', 'inject-error.1.event': 'pwritev' };
    await using disk = await graph.open({
      driver: 'blkdebug',
      image: { driver: 'file', filename: '/a.raw' },
      ...options,
    });
    const rules = blkdebugOf(disk).rules();
    expect(rules.map(({ rule }) => `${rule.kind} ${rule.event}`)).toEqual([
      'inject-error write_aio',
      'inject-error none',
      'inject-error pwritev',
      'set-state none',
    ]);
  });
});

test('BD-3, BD-25, BD-26: rules in options', async () => {
  const { disk } = await opened({ 'inject-error': [{ event: 'none', errno: 28, sector: 8, once: true }] });
  await disk.read(0, 4096);
  expect(await failure(disk.read(4096, 512))).toBe('ENOSPC');
  await disk.read(4096, 512);
  await disk.close();
});

test('BD-3, BD-5: limits in options are refused when they do not fit', async () => {
  await expect(opened({ align: 4096, 'max-transfer': 512 })).rejects.toThrow(
    'Cannot meet constraints with max-transfer 512',
  );
});

test('BD-6: the driver sees requests that keep the limits', async () => {
  const { disk, control } = await opened({
    align: 512,
    'max-transfer': 1024,
    'max-write-zero': 2048,
    'max-discard': 4096,
  });
  const seen: string[] = [];
  control.setScenario(({ type, offset, length }) => {
    seen.push(`${type} ${offset}+${length}`);
    return undefined;
  });
  await disk.write(100, ones.subarray(0, 2000));
  expect(seen).toEqual(['read 0+512', 'read 2048+512', 'write 0+1024', 'write 1024+1024', 'write 2048+512']);
  seen.length = 0;
  await disk.writeZeroes(512, 4096);
  await disk.discard(0, 10_000);
  expect(seen).toEqual([
    'write-zeroes 512+2048',
    'write-zeroes 2560+2048',
    'discard 0+4096',
    'discard 4096+4096',
    'discard 8192+1536',
  ]);
  await disk.close();
});

test("BD-7: what is too short for the driver goes the caller's own way", async () => {
  const { disk, node, control } = await opened({ align: 512, 'opt-write-zero': 4096 });
  await disk.write(0, ones);
  const seen: string[] = [];
  control.setScenario(({ type }) => {
    seen.push(type);
    return undefined;
  });
  await expect(node.impl.writeZeroes?.(0, 512, {})).rejects.toMatchObject({ code: 'ENOTSUP' });
  await expect(node.impl.discard?.(0, 256)).rejects.toMatchObject({ code: 'ENOTSUP' });
  await disk.writeZeroes(512, 512);
  expect(seen).toEqual(['write']);
  expect((await disk.read(0, 2048)).indexOf(0)).toBe(512);
  await disk.close();
});

test('BD-8: flags of zero writes come to the child; a durable write is flushed there', async () => {
  const { disk, node, control } = await opened({}, { driver: 'memory', size: SIZE });
  const flags: object[] = [];
  const child = node.filtered?.node.impl;
  if (child?.writeZeroes === undefined) throw new Error('memory can');
  const { writeZeroes } = child;
  child.writeZeroes = (offset, length, given) => {
    flags.push(given);
    return writeZeroes(offset, length, given);
  };
  const seen: string[] = [];
  control.setScenario(({ type }) => {
    seen.push(type);
    return undefined;
  });
  await disk.writeZeroes(0, 4096, { unmap: true });
  await disk.writeZeroes(0, 4096, { noFallback: true });
  expect(flags).toEqual([
    { unmap: true, noFallback: false },
    { unmap: false, noFallback: true },
  ]);
  await disk.write(0, ones, { fua: true });
  expect(seen.slice(-2)).toEqual(['write', 'flush']);
  await disk.close();
});

test('BD-27: immediately fails before anything else runs, otherwise later', async () => {
  for (const immediately of [true, false]) {
    const { disk, control, host } = await opened();
    control.add({ event: 'none', immediately });
    let later = false;
    void host.clock.sleep(0).then(() => {
      later = true;
    });
    expect(await failure(disk.read(0, 512))).toBe('EIO');
    expect(later).toBe(!immediately);
    await disk.close();
  }
});

test('BD-28: a rule of the event none is armed when the node is opened', async () => {
  const { disk } = await opened({ 'inject-error': { event: 'none' } });
  expect(await failure(disk.read(0, 512))).toBe('EIO');
  await disk.close();
});

test.each(['read', 'write', 'write-zeroes', 'discard', 'flush', 'block-status'] as const)(
  'BD-29: %s alone is failed by a rule for it',
  async (iotype) => {
    const { disk, control } = await opened();
    await disk.write(0, ones);
    await disk.flush();
    control.add({ event: 'none', ioTypes: [iotype], errno: 'ENOSPC' });
    const requests = {
      read: () => disk.read(0, 512),
      write: () => disk.write(0, ones),
      'write-zeroes': () => disk.writeZeroes(0, 512),
      discard: () => disk.discard(0, 512),
      'block-status': () => disk.status(0, 512),
      flush: () => disk.flush(),
    };
    const results: Record<string, string> = {};
    for (const [name, request] of Object.entries(requests)) results[name] = await failure(request());
    expect(Object.keys(results).filter((name) => results[name] !== 'done')).toEqual([iotype]);
    control.remove(control.rules()[0]?.id ?? 0);
    await disk.close();
  },
);

test('BD-29: a flush of nothing meets no rule', async () => {
  const { disk, control } = await opened();
  control.add({ event: 'none', ioTypes: ['flush'] });
  await disk.flush();
  await disk.discard(0, 512);
  expect(await failure(disk.flush())).toBe('EIO');
  control.remove(1);
  await disk.close();
});

test("BD-29, BD-53: what no rule hits is the child's", async () => {
  const { disk, node } = await opened();
  await disk.write(4096, ones);
  expect(await disk.status(0, SIZE)).toMatchObject({ zero: true, length: 4096 });
  await disk.resize(2 * SIZE);
  expect([disk.length, node.filtered?.node.impl.length()]).toEqual([2 * SIZE, 2 * SIZE]);
  await disk.close();
});

test('BD-30, BD-31, BD-32: a request stops at a breakpoint and goes on', async () => {
  const { disk, host } = await opened();
  expect(() => setBreakpoint(disk.node, 'foo', 'A')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  setBreakpoint(disk.node, 'pwritev', 'A');
  const writing = disk.write(0, ones);
  await suspendedAt(disk, host);
  expect((await disk.read(0, 1))[0]).toBe(0);
  resumeBreakpoint(disk.node, 'A');
  await writing;
  expect((await disk.read(0, 1))[0]).toBe(1);
  await disk.close();
});

test('BD-31: changes of the same bytes overtake a request that is suspended, as with qemu-io', async () => {
  const { disk, host } = await opened();
  const page = (byte: number) => new Uint8Array(4096).fill(byte);
  setBreakpoint(disk.node, 'pwritev', 'A');
  const first = disk.write(0, ones);
  const early = disk.write(0, page(4));
  await suspendedAt(disk, host);
  await early;
  await disk.write(0, page(2));
  await disk.writeZeroes(0, 512);
  expect(await disk.read(0, 1024)).toEqual(page(2).fill(0, 0, 512).subarray(0, 1024));
  resumeBreakpoint(disk.node, 'A');
  await first;
  expect(await disk.read(0, 4096)).toEqual(ones);
  await disk.close();
});

test('BD-33: removing a breakpoint wakes what waits there', async () => {
  const { disk, host } = await opened();
  setBreakpoint(disk.node, 'pwritev', 'A');
  const writing = disk.write(0, ones);
  await suspendedAt(disk, host);
  removeBreakpoint(disk.node, 'A');
  await writing;
  expect(() => removeBreakpoint(disk.node, 'A')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  await disk.close();
});

test('BD-34, BD-35: breakpoints go down to the first node that has any', async () => {
  const { graph } = await world();
  await using disk = await graph.open({ driver: 'raw', file: { driver: 'file', filename: '/a.raw' } });
  expect(() => setBreakpoint(disk.node, 'pwritev', 'A')).toThrow(expect.objectContaining({ code: 'ENOTSUP' }));
  expect(isSuspended(disk.node, 'A')).toBe(false);
});

test('BD-36: a suspended request fails when its node is closed', async () => {
  const { disk, host } = await opened();
  setBreakpoint(disk.node, 'pwritev', 'A');
  const writing = failure(disk.write(0, ones));
  await suspendedAt(disk, host);
  await disk.close();
  expect(await writing).toBe('ECANCELED');
});

test('BD-36: a drain wakes what is suspended, and what gets to a breakpoint meanwhile passes', async () => {
  const { disk, graph, host, control } = await opened();
  setBreakpoint(disk.node, 'pwritev', 'A');
  setBreakpoint(disk.node, 'pwritev_done', 'B');
  // A delay is no reason to wait either.
  control.add({ event: 'none', ioTypes: ['write'], action: 'delay', delayMs: 3_600_000 });
  const writing = disk.write(0, ones);
  await suspendedAt(disk, host);
  const drain = await graph.drain(disk.node);
  await writing;
  expect(host.clock.now()).toBeLessThan(3_600_000);
  drain.end();
  control.remove(1);
  const next = failure(disk.write(0, ones));
  await suspendedAt(disk, host, 'B');
  resumeBreakpoint(disk.node, 'B');
  expect(await next).toBe('done');
  await disk.close();
});

test('BD-40: the events that there are', () => {
  expect(EVENTS.length).toBe(48);
  expect(new Set(EVENTS).size).toBe(48);
  for (const name of ['l1_update', 'refblock_alloc_switch_table', 'pwritev_rmw_after_tail', 'cor_write', 'none']) {
    expect(EVENTS).toContain(name);
  }
});

test('BD-41: what the core and raw raise, in order', async () => {
  const { disk, control } = await opened({ align: 4096 });
  const trail = async (work: () => Promise<unknown>) => {
    let events: readonly string[] = [];
    control.setScenario((request) => {
      events = request.events;
      return undefined;
    });
    await work();
    return events;
  };
  expect((await trail(() => disk.read(0, 512))).slice(-2)).toEqual(['none', 'read_aio']);
  const written = await trail(() => disk.write(100, new Uint8Array(9000)));
  expect(written.slice(-6)).toEqual([
    'write_aio',
    'pwritev_rmw_head',
    'pwritev_rmw_after_head',
    'pwritev_rmw_tail',
    'pwritev_rmw_after_tail',
    'pwritev',
  ]);
  expect((await trail(() => disk.write(100, new Uint8Array(10)))).slice(-6)).toEqual([
    'write_aio',
    'pwritev_rmw_head',
    'pwritev_rmw_tail',
    'pwritev_rmw_after_head',
    'pwritev_rmw_after_tail',
    'pwritev',
  ]);
  expect((await trail(() => disk.flush())).slice(-3)).toEqual(['pwritev_done', 'flush_to_os', 'flush_to_disk']);
  expect((await trail(() => disk.writeZeroes(0, 8192))).slice(-1)).toEqual(['pwritev_zero']);
  await disk.close();
});

test('BD-41: a failed write is over too, and is flushed as one that may have happened', async () => {
  const { disk, control } = await opened();
  control.add({ event: 'pwritev', errno: 'ENOSPC' });
  control.add({ kind: 'set-state', event: 'pwritev_done', newState: 7 });
  expect(await failure(disk.write(0, ones))).toBe('ENOSPC');
  expect(control.engine.state).toBe(7);
  control.add({ event: 'pwritev_zero', errno: 'EIO' });
  control.add({ kind: 'set-state', event: 'pwritev_done', state: 7, newState: 8 });
  expect(await failure(disk.writeZeroes(0, 4096))).toBe('EIO');
  for (const { id } of control.rules()) control.remove(id);
  await disk.close();
});

describe('BD-50: permissions of the child', () => {
  test('are those of its users, with what is taken, less what is not shared', async () => {
    for (const [, name] of PERMISSION_NAMES) {
      const word = name.replaceAll(' ', '-');
      const { disk, node } = await opened({ 'take-child-perms': [word], 'unshare-child-perms': [word] });
      const [bit = 0] = PERMISSION_NAMES.find(([, other]) => other === name) ?? [];
      const held = node.filtered?.held;
      expect([word, (held?.need ?? 0) & bit, (held?.share ?? 0) & bit]).toEqual([word, bit, 0]);
      await disk.close();
    }
  });

  test.each([
    [['foo'], "Parameter 'null' does not accept value 'foo'"],
    [['graph-mod'], "Parameter 'null' does not accept value 'graph-mod'"],
    [[5], "Invalid parameter type for '[0]', expected: string"],
    [[{ x: 'write' }], "Invalid parameter type for '[0]', expected: string"],
    [{ x: 'write' }, "Invalid parameter type for '<anonymous>', expected: array"],
    [{ 1: 'write' }, 'List indices are not contiguous, saw 1 elements but 1 largest index'],
    ['write', "Block protocol 'blkdebug' doesn't support the option 'take-child-perms'"],
    [[], "Block protocol 'blkdebug' doesn't support the option 'take-child-perms'"],
  ])('%j is refused', async (given, message) => {
    await expect(opened({ 'take-child-perms': given })).rejects.toMatchObject({ code: 'EINVAL', message });
  });
});

test('BD-51: a reopen keeps the rules', async () => {
  const { graph, node, disk, control } = await opened();
  control.add({ event: 'none', errno: 'ENOSPC' });
  await graph.reopen([{ node, options: { 'read-only': false } }]);
  expect(await failure(disk.read(0, 512))).toBe('ENOSPC');
  await disk.close();
});

test('BD-60: faults appear in the trace', async () => {
  const { disk, control, host, node } = await opened();
  control.add({ event: 'none', errno: 'EIO', range: { offset: 4096, length: 1 } });
  await disk.read(0, 512);
  await failure(disk.read(4096, 512));
  const faults = host.events.filter(({ channel }) => channel === 'diskwright:fault').map(({ message }) => message);
  expect(faults).toEqual([{ node: node.name, type: 'read', offset: 4096, length: 512, action: 'error' }]);
  await disk.close();
});

test('BD-62: a scenario sees each request, with its data and the events before it, and decides', async () => {
  const { disk, control } = await opened();
  const seen: object[] = [];
  control.setScenario(async (request) => {
    seen.push({ ...request, data: request.data?.[0] });
    return request.type === 'write' && request.index === 1 ? { kind: 'error', errno: 'ENOSPC' } : undefined;
  });
  await disk.write(512, ones);
  expect(await failure(disk.write(0, ones))).toBe('ENOSPC');
  await disk.read(512, 16);
  expect(seen).toEqual([
    { type: 'write', offset: 512, length: 4096, data: 1, index: 0, events: ['none', 'write_aio', 'pwritev'] },
    expect.objectContaining({ type: 'write', offset: 0, index: 1 }),
    expect.objectContaining({ type: 'read', offset: 512, length: 16, data: undefined, index: 2 }),
  ]);
  control.setScenario(undefined);
  await disk.write(0, ones);
  await disk.close();
});
