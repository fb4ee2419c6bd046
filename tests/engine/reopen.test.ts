/** Reopening: BL-REOPEN-1 to 8. Where words differ, they are those of `qemu-io -c reopen`. */
import { describe, expect, test } from 'vitest';
import { setBacking } from '../../src/core/chain-change.ts';
import { defineFormat } from '../../src/core/driver.ts';
import type { BlockNode } from '../../src/core/node.ts';
import { option } from '../../src/core/options.ts';
import { reopen, setReadOnly } from '../../src/core/reopen.ts';
import { filled, Layers } from '../support/layers.ts';
import { failureOf, gate, plainFormat } from './storage.ts';

async function world(names: readonly string[] = ['b', 'a', 'base'], options = { writable: true }) {
  const layers = new Layers();
  const disk = await layers.chain(names, options);
  const node = (name: string) => layers.node(name);
  const change = (name: string, given: Parameters<typeof reopen>[1][number]['options'], reset = false) =>
    reopen(layers.graph, [{ node: node(name), options: given, reset }]);
  const refusal = (name: string, given: Parameters<typeof change>[1], reset = false) =>
    failureOf(change(name, given, reset));
  return { layers, graph: layers.graph, disk, node, change, refusal };
}

function label(node: BlockNode): unknown {
  return node.impl.info?.()?.specific?.data.label;
}

describe('what is reopened', () => {
  test('BL-REOPEN-1: a node with all that inherit from it, each with flags by its role', async () => {
    const again = await world(['b', 'a', 'base'], { writable: false });
    const settings = (name: string) => again.node(name).settings.readOnly;
    await again.change('b', { 'read-only': false });
    expect(['b', 'b-file', 'a', 'a-file', 'base'].map(settings)).toEqual([false, false, true, true, true]);
    await again.change('b', { 'read-only': true, 'cache.no-flush': true });
    expect(['b', 'b-file'].map(settings)).toEqual([true, true]);
    expect(['b', 'b-file', 'a', 'base-file'].map((name) => again.node(name).settings.cache.noFlush)).toEqual([
      true,
      true,
      true,
      true,
    ]);
  });

  test('BL-REOPEN-1: children by reference belong to others', async () => {
    const { layers, graph, node } = await world(['a', 'base'], { writable: false });
    await layers.make('b', 'a');
    const disk = await graph.open({ ...layers.tree('b'), backing: 'a' }, { writable: false });
    await reopen(graph, [{ node: node('b'), options: { 'cache.no-flush': true } }]);
    expect([node('b-file').settings.cache.noFlush, node('a').settings.cache.noFlush]).toEqual([true, false]);
    await disk.close();
  });

  test('BL-REOPEN-2: options given win over explicit ones, those over inherited ones; a node asked for twice is one', async () => {
    const { layers, graph, node } = await world(['a', 'base'], { writable: false });
    await reopen(graph, [{ node: node('a-file'), options: { 'read-only': true } }]);
    await reopen(graph, [{ node: node('a'), options: { 'read-only': false } }]).then(
      () => expect.unreachable(),
      (error) => expect(error.message).toBe('Block node is read-only'),
    );
    layers.steps.length = 0;
    await reopen(graph, [
      { node: node('a'), options: { label: 'one', 'cache.no-flush': true } },
      { node: node('a'), options: { label: 'two' } },
    ]);
    expect([label(node('a')), node('a').settings.cache.noFlush]).toEqual(['two', true]);
    expect(layers.steps.filter((step) => step === 'prepareReopen a')).toHaveLength(1);
  });

  test('BL-REOPEN-2: NAME.* reaches the child, and the child of the child', async () => {
    const { node, change } = await world();
    await change('b', { backing: { 'read-only': false, label: 'low', file: { 'cache.no-flush': true } } });
    expect([node('a').writable, label(node('a')), node('a-file').settings.cache.noFlush]).toEqual([true, 'low', true]);
    expect([node('base').settings.cache.noFlush, node('b').settings.cache.noFlush]).toEqual([false, false]);
  });

  test('BL-REOPEN-2: parents come first, and queued nodes are drained', async () => {
    const { layers, disk, change } = await world();
    const depths: number[] = [];
    const original = layers.steps.push.bind(layers.steps);
    layers.steps.push = (step) => {
      if (step.startsWith('prepareReopen')) depths.push(disk.node.drainDepth);
      return original(step);
    };
    await change('b', { 'cache.no-flush': true });
    expect(layers.steps.filter((step) => step.startsWith('prepareReopen'))).toEqual([
      'prepareReopen b',
      'prepareReopen a',
    ]);
    expect(depths).toEqual([1, 1]);
    expect(disk.node.drainDepth).toBe(0);
  });

  test('BL-REOPEN-2: reset goes back to defaults, and needs what has none', async () => {
    const { node, change, refusal } = await world(['a']);
    await change('a', { label: 'x', 'cache.no-flush': true });
    await change('a', {}, true);
    expect([label(node('a')), node('a').settings.cache.noFlush, node('a-file').filename]).toEqual([
      '',
      false,
      '/a.layer',
    ]);
    expect((await refusal('a-file', {}, true)).message).toBe("Option 'filename' cannot be reset to its default value");
    await change('a-file', { filename: '/a.layer' }, true);
  });
});

describe('all or none', () => {
  test('BL-REOPEN-3: all are flushed before any is prepared, and one that cannot be stops it', async () => {
    const { layers, change, refusal, node } = await world(['a', 'base']);
    await change('a', {});
    expect(layers.steps.filter((step) => /^(flush|prepareReopen) a/.test(step))).toEqual([
      'flush a',
      'prepareReopen a',
    ]);
    layers.failing.add('flush a');
    expect(await refusal('a', { label: 'x' })).toEqual({
      code: 'EIO',
      message: 'Error flushing drive: Input/output error',
    });
    expect(label(node('a'))).toBe('');
  });

  test('BL-REOPEN-3: the first that refuses aborts those before it', async () => {
    const { layers, graph, node } = await world();
    const before = layers.host.openFiles;
    layers.failing.add('prepareReopen a');
    const both = reopen(graph, [
      { node: node('b'), options: { label: 'new', 'cache.no-flush': true } },
      { node: node('b-file'), options: {} },
    ]);
    expect((await failureOf(both)).message).toBe("prepareReopen of 'a' fails");
    expect([label(node('b')), node('b').settings.cache.noFlush, node('b-file').settings.cache.noFlush]).toEqual([
      '',
      false,
      false,
    ]);
    expect(layers.host.openFiles).toEqual(before);
  });

  test('BL-REOPEN-3: permissions are checked for the graph as it will be; commits run children first', async () => {
    const order: string[] = [];
    const noting = defineFormat({
      ...plainFormat,
      name: 'noting',
      options: { way: option.text({ help: '', fallback: '', reopen: true }) },
      async open(context) {
        const commit = () => void order.push(`commit ${context.node}`);
        return {
          ...(await plainFormat.open(context as never)),
          prepareReopen: async () => ({
            commit,
            abort: () => void order.push(`abort ${context.node}`),
            finish: async () => void order.push(`finish ${context.node}`),
          }),
        };
      },
    });
    const layers = new Layers({ drivers: [noting] });
    const file = { driver: 'file', filename: '/base.raw' };
    const disk = await layers.graph.open(
      { driver: 'noting', 'node-name': 'up', file: { driver: 'noting', 'node-name': 'down', file } },
      { writable: true },
    );
    await reopen(layers.graph, [{ node: layers.node('up'), options: { way: 'x' } }]);
    expect(order).toEqual(['commit down', 'commit up', 'finish up', 'finish down']);
    order.length = 0;
    const refused = await failureOf(setReadOnly(layers.graph, layers.node('up'), true));
    expect(refused).toEqual({ code: 'EPERM', message: "Read-only block node 'up' cannot support read-write users" });
    expect(order).toEqual(['abort down', 'abort up']);
    expect(disk.writable).toBe(true);
    await disk.write(0, filled(1));
    await disk.close();
  });

  test('BL-REOPEN-3: requests wait for its end', async () => {
    const { layers, disk, change } = await world(['a', 'base']);
    const done: string[] = [];
    const reopening = change('a', { label: 'x' }).then(() => done.push('reopen'));
    const writing = disk.write(0, filled(1)).then(() => done.push('write'));
    await Promise.all([reopening, writing]);
    expect([done, layers.node('a').drainDepth]).toEqual([['reopen', 'write'], 0]);
  });
});

describe('preparing', () => {
  test('BL-REOPEN-4: not to read-only under copy-on-read', async () => {
    const { node, refusal } = await world(['a', 'base']);
    node('a').copyOnRead = 1;
    expect(await refusal('a', { 'read-only': true })).toEqual({
      code: 'EINVAL',
      message: "Can't set node 'a' to r/o with copy-on-read enabled",
    });
    node('a').copyOnRead = 0;
  });

  test('BL-REOPEN-4: a driver that cannot, unless nothing changes for it', async () => {
    const layers = new Layers({ drivers: [plainFormat] });
    const file = { driver: 'file', filename: '/base.raw' };
    const disk = await layers.graph.open({ driver: 'plain', 'node-name': 'p', file });
    const { graph } = layers;
    await reopen(graph, [{ node: layers.node('p'), options: { discard: 'ignore' } }]);
    for (const options of [{ 'read-only': false }, { 'cache.direct': true }]) {
      expect(await failureOf(reopen(graph, [{ node: layers.node('p'), options }]))).toEqual({
        code: 'ENOTSUP',
        message: "Block format 'plain' used by node 'p' does not support reopening files",
      });
    }
    await disk.close();
  });

  test('BL-REOPEN-4: a driver without words of its own is told with the file name', async () => {
    const layers = new Layers();
    const { graph } = layers;
    const disk = await graph.open(layers.tree('base'));
    const prepare = layers.node('base').impl;
    prepare.prepareReopen = () => layers.host.files.open('/nowhere', { write: false }) as never;
    expect(await failureOf(reopen(graph, [{ node: layers.node('base'), options: {} }]))).toEqual({
      code: 'ENOENT',
      message: "failed while preparing to reopen image '/base.raw'",
    });
    await disk.close();
  });

  test('BL-REOPEN-5: what may not change must be as it was, by value and not by type', async () => {
    const { change, refusal } = await world(['a', 'base']);
    const message = async (name: string, key: string, value: string | number | boolean) =>
      (await refusal(name, { [key]: value })).message;
    expect(await refusal('a', { fixed: 5 })).toEqual({ code: 'EINVAL', message: "Cannot change the option 'fixed'" });
    await change('a', { fixed: '0' });
    await change('a', { fixed: 0, driver: 'layer', 'node-name': 'a' });
    expect(await message('a', 'driver', 'raw')).toBe("Cannot change the option 'driver'");
    expect(await message('a', 'node-name', 'z')).toBe("Cannot change the option 'node-name'");
    expect(await message('a', 'force-share', true)).toMatch(/force-share/);
    expect(await message('a', 'nonsense', 1)).toBe("Cannot change the option 'nonsense'");
    expect(await message('a-file', 'filename', '/x')).toBe("Cannot change the option 'filename'");
    expect(await message('a', 'file.filename', '/x')).toBe("Cannot change the option 'filename'");
    expect(await message('a', 'discard', 'bogus')).toBe('Invalid discard option');
    expect(await message('a', 'read-only', 'bogus')).toBe("Parameter 'read-only' expects 'on' or 'off'");
  });

  test('BL-REOPEN-5: sharing by force cannot change', async () => {
    const { refusal } = await world(['a', 'base'], { writable: false });
    expect(await refusal('a', { 'force-share': true })).toMatchObject({
      message: "Cannot change the option 'force-share'",
    });
  });

  test('BL-REOPEN-6: options are kept for the next time, limits and length are read anew', async () => {
    const { node, change } = await world(['a', 'base']);
    const { impl } = node('a');
    impl.limits = () => ({ preferred: 4096 });
    impl.length = () => 4096;
    await change('a', { label: 'kept', 'cache.no-flush': true });
    expect([node('a').limits.preferred, node('a').toldLength]).toEqual([4096, 4096]);
    await change('a', { discard: 'ignore' });
    expect([label(node('a')), node('a').settings.cache.noFlush, node('a').settings.discard]).toEqual([
      'kept',
      true,
      'ignore',
    ]);
  });

  test('BL-REOPEN-7: one change alone', async () => {
    const { graph, node, change } = await world(['b', 'a', 'base'], { writable: false });
    await change('a', { label: 'x' });
    await setReadOnly(graph, node('a'), false);
    expect([node('a').writable, node('a-file').writable, label(node('a'))]).toEqual([true, true, 'x']);
    await setReadOnly(graph, node('a'), true);
    expect([node('a').writable, node('a-file').writable]).toEqual([false, false]);
  });

  test('a node that was degraded stays so until writing is asked for', async () => {
    const layers = new Layers();
    layers.host.put('/ro.raw', 1024, { readOnly: true });
    const tree = {
      driver: 'raw',
      'node-name': 'r',
      'auto-read-only': true,
      file: { driver: 'file', filename: '/ro.raw' },
    };
    const node = await layers.graph.add(tree);
    expect(node.writable).toBe(false);
    await reopen(layers.graph, [{ node, options: { 'cache.no-flush': true } }]);
    expect([node.writable, node.settings.readOnly]).toEqual([false, false]);
    expect((await failureOf(setReadOnly(layers.graph, node, false))).code).toBe('EACCES');
    await layers.graph.release(node);
  });
});

describe('changing children (BL-REOPEN-8)', () => {
  test('backing by name, by null, and as it is', async () => {
    const { layers, change, node } = await world();
    await change('b', { backing: 'a' });
    expect(node('b').backing?.node).toBe(node('a'));
    await change('b', { backing: 'base' });
    expect(node('b').backing?.node).toBe(node('base'));
    expect(layers.names).not.toContain('a');
    await change('b', { backing: null });
    expect([node('b').backing, layers.names]).toEqual([undefined, ['b-file', 'b']]);
    await change('b', { backing: null });
  });

  test('what is refused, to the letter', async () => {
    const { layers, graph, refusal, node } = await world();
    const disk = await graph.open({ driver: 'pass', 'node-name': 'f', file: 'b' });
    const { names } = layers;
    const message = async (name: string, options: Parameters<typeof refusal>[1]) =>
      (await refusal(name, options)).message;
    expect(await message('b', { backing: 'nope' })).toBe("Cannot find device='' nor node-name='nope'");
    expect(await message('b', { backing: '' })).toBe("Cannot find device='' nor node-name=''");
    expect(await message('b', { backing: 'b' })).toBe("Making 'b' a backing child of 'b' would create a cycle");
    expect(await message('a', { backing: 'f' })).toBe("Making 'f' a backing child of 'a' would create a cycle");
    expect(await message('base', { backing: 'a-file' })).toBe(
      "Driver 'raw' of node 'base' does not support backing files",
    );
    expect(await message('f', { backing: 'a' })).toBe(
      "'f' is a pass filter node that does not support a backing child",
    );
    expect(await message('a-file', { file: 'b-file' })).toBe('Cannot set file child to format node without file child');
    expect(await message('b', { backing: 'a', 'backing.label': 'x' })).toBe("Cannot change the option 'backing.label'");
    expect(await message('b', { file: null })).toBe("Cannot change the option 'file'");
    node('a').implicit = true;
    expect(await message('b', { backing: 'base' })).toBe('Cannot replace implicit backing child of b');
    node('a').implicit = false;
    const [link] = node('a').parents;
    if (link !== undefined) link.frozen = true;
    expect(await message('b', { backing: 'base' })).toBe("Cannot change frozen 'backing' link from 'b' to 'a'");
    if (link !== undefined) link.frozen = false;
    expect(layers.names).toEqual(names);
    await disk.close();
  });

  test('a filter gets another child, and file a node of the same content', async () => {
    const { layers, graph, node, change } = await world(['a', 'base'], { writable: false });
    const disk = await graph.open({ driver: 'pass', 'node-name': 'f', file: 'a' });
    await change('f', { file: 'base' });
    expect([node('f').filtered?.node, (await disk.read(0, 1))[0]]).toEqual([node('base'), 0xba]);
    const other = await graph.add({ driver: 'file', 'node-name': 'same', filename: '/a.layer', 'read-only': true });
    await change('a', { file: 'same' });
    expect([node('a').child('file')?.node.name, layers.names.includes('a-file')]).toEqual(['same', false]);
    await graph.release(other);
    await disk.close();
  });

  test('reset without a word of the backing image', async () => {
    const { refusal, change, graph, node } = await world(['b', 'a', 'base'], { writable: false });
    expect(await refusal('b', {}, true)).toEqual({ code: 'EINVAL', message: "backing is missing for 'b'" });
    await change('b', { backing: 'a', 'read-only': true }, true);
    await setBacking(graph, node('b'), undefined);
    expect((await refusal('b', {}, true)).message).toBe("backing is missing for 'b'");
  });
});

describe('beside other work', () => {
  test('two reopens of a node take turns', async () => {
    const { layers, node, change } = await world(['a', 'base']);
    const files = layers.host.openFiles.length;
    await Promise.all([
      change('a', { label: 'one' }),
      change('a', { 'cache.no-flush': true }),
      change('a', { label: 'three' }),
    ]);
    expect([label(node('a')), node('a').settings.cache.noFlush, layers.host.openFiles.length]).toEqual([
      'three',
      true,
      files,
    ]);
  });

  test('closing waits for a reopen, and a reopen of what is closed is told so', async () => {
    const { layers, disk, node, change } = await world(['a', 'base']);
    const a = node('a');
    const reopening = change('a', { label: 'x' });
    const closing = disk.close();
    await Promise.all([reopening, closing]);
    expect([layers.names, layers.host.openFiles, label(a)]).toEqual([[], [], 'x']);
    expect(await failureOf(reopen(layers.graph, [{ node: a, options: {} }]))).toEqual({
      code: 'ENOMEDIUM',
      message: "Node 'a' is closed",
    });
  });

  test('what takes time at its end may fail without harm', async () => {
    const { layers, change, node } = await world(['a', 'base']);
    layers.host.faults.inject({ operation: 'close', code: 'EIO', path: '/a.layer', times: 1 });
    await change('a', { label: 'x' });
    expect([label(node('a')), layers.host.notices.length]).toEqual(['x', 1]);
  });

  test('requests of jobs under way end before the file they are in is closed', async () => {
    const { layers, node, change } = await world(['a', 'base']);
    const { impl } = node('a-file');
    const hold = gate();
    const ends: string[] = [];
    const { read } = impl;
    impl.read = async (offset, target) => {
      if (offset === 8192) await hold.wait();
      return read.call(impl, offset, target);
    };
    const { prepareReopen } = impl;
    impl.prepareReopen = async (next) => {
      const step = await prepareReopen?.call(impl, next);
      if (step === undefined) throw new TypeError('a file can be reopened');
      // A job's request, which no drain holds back, begins between the two phases.
      const reading = node('a-file').tracker.track(() => impl.read(8192, new Uint8Array(1)));
      void reading.then(() => ends.push('read'));
      return {
        ...step,
        async finish() {
          ends.push('close');
          await step.finish?.();
        },
      };
    };
    const reopening = change('a', {});
    await layers.host.clock.sleep(1);
    hold.open();
    await reopening;
    expect(ends).toEqual(['read', 'close']);
  });
});
