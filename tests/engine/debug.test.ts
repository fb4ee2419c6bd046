/** Debug hooks: BL-DEBUG. */
import { describe, expect, test } from 'vitest';
import { debugEvent, isSuspended, removeBreakpoint, resumeBreakpoint, setBreakpoint } from '../../src/core/debug.ts';
import { type DebugBreakpoints, defineFilter, defineFormat, type OpenContext } from '../../src/core/driver.ts';
import { BlockNode } from '../../src/core/node.ts';
import { graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

/** Two filters that listen, one of them with breakpoints, and a format that raises an event with every read. */
function world() {
  const story: string[] = [];
  const note = (line: string) => void story.push(line);
  const breakpoints: DebugBreakpoints = {
    breakpoint: (event, tag) => note(`break ${event} ${tag}`),
    removeBreakpoint: (tag) => note(`remove ${tag}`),
    isSuspended: (tag) => tag === 'stopped',
    resume: (tag) => note(`resume ${tag}`),
  };
  const listening = (name: string, more: object) =>
    defineFilter({
      name,
      summary: '',
      options: {},
      open: async () => ({ debugEvent: (event: string) => note(`${name}: ${event}`), ...more }),
    });
  const raising = defineFormat({
    ...plainFormat,
    name: 'raising',
    events: ['read'],
    async open(context: OpenContext<unknown>) {
      const plain = await plainFormat.open(context);
      return {
        ...plain,
        async read(offset, target) {
          context.event('read');
          await plain.read(offset, target);
        },
      };
    },
  });
  const drivers = [storageProtocol(new Storage(8192)), plainFormat, raising];
  const graph = graphOf([...drivers, listening('ear', {}), listening('breaker', { breakpoints })]);
  return { story, graph };
}

const STORE = { driver: 'store' };

describe('events (BL-DEBUG-1)', () => {
  test('go to the node below the driver, and not further', async () => {
    const { story, graph } = world();
    const disk = await graph.open({ driver: 'raising', file: { driver: 'ear', file: { driver: 'ear', file: STORE } } });
    await disk.read(0, 1);
    expect(story).toEqual(['ear: read']);
  });

  test('are ignored where nobody listens', async () => {
    const { story, graph } = world();
    const file = { driver: 'plain', file: { driver: 'ear', file: STORE } };
    const disk = await graph.open({ driver: 'raising', file });
    await disk.read(0, 1);
    debugEvent(disk.node, 'read');
    debugEvent(new BlockNode('empty', disk.node.driver, disk.node.settings, {}, disk.node.origin), 'read');
    expect(story).toEqual([]);
  });
});

describe('breakpoints (BL-DEBUG-2)', () => {
  test('are those of the first node down the primary children that has any', async () => {
    const { story, graph } = world();
    const inner = { driver: 'breaker', file: { driver: 'breaker', file: STORE } };
    const { node } = await graph.open({ driver: 'raising', file: { driver: 'ear', file: inner } });
    setBreakpoint(node, 'read', 'A');
    resumeBreakpoint(node, 'A');
    removeBreakpoint(node, 'A');
    expect(story).toEqual(['break read A', 'resume A', 'remove A']);
    expect([isSuspended(node, 'stopped'), isSuspended(node, 'A')]).toEqual([true, false]);
  });

  test('nobody: not supported, and not suspended', async () => {
    const { graph } = world();
    const { node } = await graph.open({ driver: 'plain', file: STORE });
    const refused = expect.objectContaining({ code: 'ENOTSUP', message: 'Operation not supported' });
    expect(() => setBreakpoint(node, 'read', 'A')).toThrow(refused);
    expect(() => removeBreakpoint(node, 'A')).toThrow(refused);
    expect(() => resumeBreakpoint(node, 'A')).toThrow(refused);
    expect(isSuspended(node, 'A')).toBe(false);
  });

  test('a node without driver ends the search', async () => {
    const { graph } = world();
    const { node } = await graph.open({ driver: 'breaker', file: STORE });
    const empty = new BlockNode('empty', node.driver, node.settings, {}, node.origin);
    expect(isSuspended(empty, 'stopped')).toBe(false);
    expect(isSuspended(node, 'stopped')).toBe(true);
  });
});
