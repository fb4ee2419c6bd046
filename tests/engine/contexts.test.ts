/** BL-CTX-1 to 4: contexts of nodes. That blocking calls then go elsewhere is for tests of the Node host to show. */
import { describe, expect, test } from 'vitest';
import { addContextNotifier, removeContextNotifier, setContext } from '../../src/core/context.ts';
import { defineFormat, defineProtocol } from '../../src/core/driver.ts';
import { BlockError } from '../../src/core/errors.ts';
import type { Graph } from '../../src/core/graph.ts';
import type { HostContext } from '../../src/core/host.ts';
import type { BlockNode, GraphUser } from '../../src/core/node.ts';
import { ALL_PERMISSIONS, NO_PERMISSIONS } from '../../src/core/permissions.ts';
import { failureOf, graphOf } from './storage.ts';

function context(name: string): HostContext {
  return { name, close: async () => {} };
}

/** A graph whose drivers write down what happens to them. */
class World {
  readonly story: string[] = [];
  readonly graph: Graph;
  /** Names of nodes whose driver refuses. */
  readonly refusing = new Set<string>();
  /** Reads of a leaf wait for it. */
  reads: Promise<void> = Promise.resolve();
  /** Opening a format waits for it. */
  opens: Promise<void> = Promise.resolve();

  constructor() {
    const leaf = defineProtocol({
      name: 'leaf',
      summary: 'zeroes',
      options: {},
      open: async ({ node, hostContext }) => {
        this.#tell('open', node, hostContext);
        return {
          length: () => 4096,
          read: async (_offset, target) => {
            await this.reads;
            target.fill(0);
            this.story.push(`read ${node}`);
          },
          ...this.#methods(node),
        };
      },
    });
    const format = defineFormat({
      name: 'tree',
      summary: 'a format with children of all kinds',
      options: {},
      supportsBacking: true,
      children: { extra: { role: 'data', optional: true } },
      open: async ({ node, file, hostContext }) => {
        this.#tell('open', node, hostContext);
        await this.opens;
        return {
          length: () => 4096,
          read: (offset, target) => file.read(offset, target),
          quiesce: () => this.story.push(`quiesce ${node}`),
          resume: () => this.story.push(`resume ${node}`),
          backing: () => undefined,
          ...this.#methods(node),
        };
      },
    });
    this.graph = graphOf([leaf, format]);
  }

  #tell(what: string, node: string, where: HostContext | undefined): void {
    this.story.push(`${what} ${node} ${where?.name ?? 'main'}`);
  }

  #methods(node: string) {
    return {
      prepareContext: (next: HostContext | undefined) => {
        if (this.refusing.has(node)) throw new BlockError('ECANCELED', `${node} refuses`);
        return {
          commit: () => this.#tell('driver', node, next),
          abort: () => void this.story.push(`abort ${node}`),
        };
      },
    };
  }

  node(name: string): BlockNode {
    const node = this.graph.node(name);
    if (node === undefined) throw new Error(`no node ${name}`);
    return node;
  }

  /** Notes what the notifiers of a node are told. */
  watch(...names: string[]): void {
    for (const name of names) {
      addContextNotifier(this.node(name), {
        attached: (where, value) => this.#tell('attached', value, where),
        detach: (value) => void this.story.push(`detach ${value}`),
        value: name,
      });
    }
  }

  where(): Record<string, string> {
    return Object.fromEntries(this.graph.nodes().map((node) => [node.name, node.context?.name ?? 'main']));
  }

  forget(): void {
    this.story.length = 0;
  }
}

const leaf = (name: string) => ({ driver: 'leaf', 'node-name': name });
const tree = (name: string, children: object) => ({ driver: 'tree', 'node-name': name, ...children });
const FULL = tree('top', {
  file: leaf('file'),
  backing: tree('base', { file: leaf('base-file') }),
  extra: leaf('extra'),
});

const A = context('a');
const B = context('b');

describe('a node', () => {
  test('BL-CTX-1: is in the main context at first', async () => {
    const world = new World();
    await using disk = await world.graph.open(FULL);
    expect(disk.node.context).toBeUndefined();
    expect(new Set(Object.values(world.where()))).toEqual(new Set(['main']));
    await setContext(world.graph, disk.node, A);
    expect(disk.node.context).toBe(A);
  });

  test('is opened in the context that is asked for, with all below it', async () => {
    const world = new World();
    await using _disk = await world.graph.open(FULL, { context: A });
    expect(world.where()).toEqual({ file: 'a', extra: 'a', top: 'a', 'base-file': 'a', base: 'a' });
    expect(world.story.filter((line) => line.startsWith('open')).sort()).toEqual(
      ['base', 'base-file', 'extra', 'file', 'top'].map((name) => `open ${name} a`),
    );
    expect(world.story.filter((line) => line.startsWith('driver'))).toEqual([]);
  });

  test('BL-CTX-2: is drained, detached from the top down, attached from the bottom up: file before backing, and the others last', async () => {
    const world = new World();
    await using disk = await world.graph.open(FULL);
    world.watch('top', 'file', 'base', 'base-file', 'extra');
    world.forget();
    await setContext(world.graph, disk.node, A);
    expect(world.story).toEqual([
      'quiesce top',
      'quiesce base',
      ...['detach top', 'detach file', 'detach base', 'detach base-file', 'detach extra'],
      ...['driver extra a', 'attached extra a'],
      ...['driver base-file a', 'attached base-file a', 'driver base a', 'attached base a'],
      ...['driver file a', 'attached file a'],
      ...['driver top a', 'attached top a'],
      'resume top',
      'resume base',
    ]);
    world.forget();
    await setContext(world.graph, disk.node, undefined);
    expect(world.story).toContain('driver top main');
    expect(world.story).toContain('attached base-file main');
  });

  test('BL-CTX-2, BL-CTX-5: moves when no request is under way; new ones wait for it', async () => {
    const world = new World();
    await using disk = await world.graph.open(FULL);
    let release = () => {};
    world.reads = new Promise((resolve) => {
      release = resolve;
    });
    world.forget();
    const first = disk.read(0, 512);
    const moved = setContext(world.graph, disk.node, A);
    const second = disk.read(0, 512);
    await new Promise<void>((resolve) => setImmediate(resolve));
    expect(world.story).toEqual(['quiesce top', 'quiesce base']);
    expect(disk.node.context).toBeUndefined();
    release();
    await Promise.all([first, moved, second]);
    const moves = world.story.filter((line) => /^(read|driver file)/.test(line));
    expect(moves).toEqual(['read file', 'driver file a', 'read file']);
    expect(disk.node.drainDepth).toBe(0);
  });

  test('BL-CTX-2: without a driver yet is passed over, and gets its context when it has one', async () => {
    const world = new World();
    await using _file = await world.graph.open(leaf('file'));
    let release = () => {};
    world.opens = new Promise((resolve) => {
      release = resolve;
    });
    const opening = world.graph.open(tree('top', { file: 'file' }));
    await new Promise<void>((resolve) => setImmediate(resolve));
    world.forget();
    await setContext(world.graph, world.node('file'), A);
    expect(world.story).toEqual(['driver file a']);
    release();
    await using disk = await opening;
    expect(world.story).toEqual(['driver file a', 'driver top a']);
    expect(disk.node.context).toBe(A);
  });

  test('set to the context that it is in is left alone', async () => {
    const world = new World();
    await using disk = await world.graph.open(FULL, { context: A });
    world.watch('top');
    world.forget();
    await setContext(world.graph, disk.node, A);
    expect(world.story).toEqual([]);
  });

  test('closed meanwhile is told as such', async () => {
    const world = new World();
    const disk = await world.graph.open(leaf('file'));
    const { node } = disk;
    await disk.close();
    expect(await failureOf(setContext(world.graph, node, A))).toEqual({
      code: 'ENODEV',
      message: "Node 'file' is closed",
    });
  });
});

describe('notifiers (BL-CTX-3)', () => {
  const notifier = (story: string[], value: string) => ({
    attached: (where: HostContext | undefined, user: string) => void story.push(`${user} attached ${where?.name}`),
    detach: (user: string) => void story.push(`${user} detach`),
    value,
  });

  test('are a pair of functions and a value; removal needs all three the same', async () => {
    const world = new World();
    await using disk = await world.graph.open(leaf('file'));
    const { node } = disk;
    const story: string[] = [];
    const one = notifier(story, 'one');
    addContextNotifier(node, one);
    addContextNotifier(node, { ...one, value: 'two' });
    await setContext(world.graph, node, A);
    expect(story).toEqual(['one detach', 'two detach', 'one attached a', 'two attached a']);
    const misuse = new TypeError("node 'file' has no such context notifier");
    expect(() => removeContextNotifier(node, { ...one, value: 'three' })).toThrow(misuse);
    expect(() => removeContextNotifier(node, { ...one, attached: () => {} })).toThrow(misuse);
    expect(() => removeContextNotifier(node, { ...one, detach: () => {} })).toThrow(misuse);
    removeContextNotifier(node, { ...one });
    expect(() => removeContextNotifier(node, one)).toThrow(misuse);
    story.length = 0;
    await setContext(world.graph, node, undefined);
    expect(story).toEqual(['two detach', 'two attached undefined']);
  });

  test('removed in the middle of a change are not called any more, and the others are', async () => {
    const world = new World();
    await using disk = await world.graph.open(leaf('file'));
    const { node } = disk;
    const story: string[] = [];
    const [second, third] = [notifier(story, 'second'), notifier(story, 'third')];
    const first = {
      attached: () => {},
      detach: () => {
        removeContextNotifier(node, first);
        removeContextNotifier(node, second);
        addContextNotifier(node, notifier(story, 'late'));
      },
      value: undefined,
    };
    for (const each of [first, second, third]) addContextNotifier<never>(node, each as never);
    await setContext(world.graph, node, A);
    // One that is added comes into the next walk.
    expect(story).toEqual(['third detach', 'third attached a', 'late attached a']);
  });

  test('the same one may be there twice', async () => {
    const world = new World();
    await using disk = await world.graph.open(leaf('file'));
    const story: string[] = [];
    const one = notifier(story, 'one');
    addContextNotifier(disk.node, one);
    addContextNotifier(disk.node, one);
    removeContextNotifier(disk.node, one);
    await setContext(world.graph, disk.node, A);
    expect(story).toEqual(['one detach', 'one attached a']);
  });
});

describe('a change (BL-CTX-4)', () => {
  const fixed: GraphUser = { description: "block job 'j'", fixedContext: true };
  const nothing = { need: NO_PERMISSIONS, share: ALL_PERMISSIONS };

  test('covers all that is linked, whichever node it begins at, and others not', async () => {
    const world = new World();
    await using _disk = await world.graph.open(FULL);
    await using _other = await world.graph.open(tree('sibling', { file: 'extra' }));
    await using _apart = await world.graph.open(leaf('apart'));
    for (const [name, where] of [
      ['base-file', A],
      ['sibling', B],
      ['extra', A],
    ] as const) {
      await setContext(world.graph, world.node(name), where);
      const { apart, ...linked } = world.where();
      expect(apart).toBe('main');
      expect(Object.keys(linked).sort()).toEqual(['base', 'base-file', 'extra', 'file', 'sibling', 'top']);
      expect(new Set(Object.values(linked))).toEqual(new Set([where.name]));
    }
  });

  test('is refused by a user without support for it, and nothing happens', async () => {
    const world = new World();
    await using disk = await world.graph.open(FULL);
    const link = world.graph.attach('root', fixed, world.node('extra'), 'filtered', nothing);
    world.watch('top', 'extra');
    world.forget();
    expect(await failureOf(setContext(world.graph, world.node('base-file'), A))).toEqual({
      code: 'EPERM',
      message: "Changing iothreads is not supported by block job 'j'",
    });
    expect(world.story).toEqual([]);
    expect(new Set(Object.values(world.where()))).toEqual(new Set(['main']));
    // The one that asks for it is no hindrance.
    await setContext(world.graph, disk.node, A, { ignore: [fixed] });
    expect(world.where()).toMatchObject({ top: 'a', extra: 'a' });
    await world.graph.detach(link);
    await setContext(world.graph, disk.node, B);
    expect(world.where()).toMatchObject({ top: 'b', extra: 'b' });
  });

  test('is refused by a user that comes while requests end', async () => {
    const world = new World();
    await using disk = await world.graph.open(leaf('file'));
    let release = () => {};
    world.reads = new Promise((resolve) => {
      release = resolve;
    });
    const read = disk.read(0, 512);
    const refused = failureOf(setContext(world.graph, disk.node, A));
    const link = world.graph.attach('root', fixed, disk.node, 'filtered', nothing);
    release();
    await read;
    expect(await refused).toMatchObject({ code: 'EPERM' });
    expect([disk.node.context, disk.node.drainDepth]).toEqual([undefined, 0]);
    await world.graph.detach(link);
  });

  test('takes in nodes that come while requests end', async () => {
    const world = new World();
    await using disk = await world.graph.open(leaf('file'));
    let release = () => {};
    world.reads = new Promise((resolve) => {
      release = resolve;
    });
    const read = disk.read(0, 512);
    const moved = setContext(world.graph, disk.node, A);
    await using _above = await world.graph.open(tree('top', { file: 'file' }));
    release();
    await Promise.all([read, moved]);
    expect(world.where()).toEqual({ file: 'a', top: 'a' });
    expect(world.story.filter((line) => line === 'driver file a')).toHaveLength(1);
    expect(world.story).toContain('driver top a');
  });

  test('that a driver refuses is taken back as a whole', async () => {
    const world = new World();
    await using disk = await world.graph.open(FULL);
    world.watch('top', 'extra');
    world.refusing.add('file');
    world.forget();
    expect(await failureOf(setContext(world.graph, disk.node, A))).toEqual({
      code: 'ECANCELED',
      message: 'file refuses',
    });
    expect(world.story.filter((line) => !/^(quiesce|resume)/.test(line)).sort()).toEqual([
      'abort base',
      'abort base-file',
      'abort extra',
    ]);
    expect(new Set(Object.values(world.where()))).toEqual(new Set(['main']));
  });
});

describe('linked nodes are in one context (BL-CTX-4)', () => {
  const fixed: GraphUser = { description: 'an export', fixedContext: true };
  const nothing = { need: NO_PERMISSIONS, share: ALL_PERMISSIONS };

  test('a node opened over one in a context comes there, with its other children', async () => {
    const world = new World();
    await using _file = await world.graph.open(leaf('file'), { context: A });
    await using _top = await world.graph.open(tree('top', { file: 'file', extra: leaf('extra') }));
    expect(world.where()).toEqual({ file: 'a', top: 'a', extra: 'a' });
    expect(world.story).toContain('open top a');
    expect(world.story).toContain('driver extra a');
  });

  test('of two contexts the parent decides; a user may turn that round', async () => {
    const world = new World();
    await using _file = await world.graph.open(leaf('file'), { context: A });
    await using _top = await world.graph.open(tree('top', { file: 'file' }), { context: B });
    expect(world.where()).toEqual({ file: 'b', top: 'b' });

    await using _other = await world.graph.open(leaf('other'), { context: A });
    const link = world.graph.attach('root', fixed, world.node('other'), 'filtered', nothing);
    await using _second = await world.graph.open(tree('second', { file: 'other' }), { context: B });
    expect(world.where()).toMatchObject({ other: 'a', second: 'a' });

    await using _third = await world.graph.open(tree('third', { file: 'file', extra: 'other' }));
    expect(new Set(Object.values(world.where()))).toEqual(new Set(['a']));
    await world.graph.detach(link);
  });

  test('a link that would join two contexts that users fix is refused', async () => {
    const world = new World();
    await using _file = await world.graph.open(leaf('file'), { context: A });
    await using _other = await world.graph.open(leaf('other'), { context: B });
    const links = ['file', 'other'].map((name) =>
      world.graph.attach('root', fixed, world.node(name), 'filtered', nothing),
    );
    expect(await failureOf(world.graph.open(tree('top', { file: 'file', extra: 'other' })))).toEqual({
      code: 'EPERM',
      message: 'Changing iothreads is not supported by an export',
    });
    expect(world.where()).toEqual({ file: 'a', other: 'b' });
    for (const link of links) await world.graph.detach(link);
  });
});
