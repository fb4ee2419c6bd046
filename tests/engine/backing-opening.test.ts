/** Opening the image below: BL-CHAIN-6, BL-CHAIN-7. */
import { describe, expect, test } from 'vitest';
import { type DriverSpec, defineFormat } from '../../src/core/driver.ts';
import { Graph } from '../../src/core/graph.ts';
import type { NestedOptions } from '../../src/core/options.ts';
import { DEFAULT_OPEN_POLICY } from '../../src/core/policy.ts';
import { raw } from '../../src/formats/raw.ts';
import { SimHost } from '../../src/testing/index.ts';
import { namingFormat } from './naming-format.ts';
import { failing, failureOf, plainFormat, Storage, storageProtocol } from './storage.ts';

const broken = defineFormat({ ...plainFormat, name: 'broken', open: failing('EIO') });

function newGraph(openPolicy = DEFAULT_OPEN_POLICY) {
  const host = new SimHost();
  const files: DriverSpec = storageProtocol(new Storage(8192), 'file');
  return { host, graph: new Graph({ host, drivers: [files, raw, plainFormat, broken, namingFormat], openPolicy }) };
}

const FILE = { driver: 'file', filename: '/d/top' };
const TOP = { driver: 'naming', file: FILE };

/** Driver and name of the image below; undefined: none. */
async function below(more: NestedOptions, { graph } = newGraph()) {
  await using disk = await graph.open({ ...TOP, ...more });
  const node = disk.node.backing?.node;
  return node && `${node.driver.name} ${node.filename}`;
}

describe('BL-CHAIN-6: which image is below', () => {
  test('none, where the image names none and the options neither', async () => {
    expect(await below({})).toBeUndefined();
  });

  test('the one that the image names, in the format that it tells, unless the options do', async () => {
    expect(await below({ names: 'x', format: 'plain' })).toBe('plain /d/x');
    expect(await below({ names: 'x', format: 'plain', backing: { driver: 'raw' } })).toBe('raw /d/x');
    expect(await below({ names: 'x', backing: { driver: 'raw' } })).toBe('raw /d/x');
  });

  test('another, where the options name a file', async () => {
    const backing = { driver: 'raw', file: { driver: 'file', filename: '/other' } };
    expect(await below({ names: 'x', format: 'plain', backing })).toBe('raw /other');
    expect(await below({ backing })).toBe('raw /other');
  });

  test('a failure is told as one of the backing file, and nothing stays open', async () => {
    const { graph } = newGraph();
    expect(await failureOf(graph.open({ ...TOP, names: 'x', format: 'broken' }))).toEqual({
      code: 'EIO',
      message: "Could not open backing file: Could not open '/d/x': Input/output error",
    });
    expect(await failureOf(graph.open({ ...TOP, names: 'x', format: 'nope' }))).toEqual({
      code: 'ENOENT',
      message: "Could not open backing file: Unknown driver 'nope'",
    });
    expect(graph.nodes()).toEqual([]);
  });

  test('drivers without such images refuse their options', async () => {
    const { graph } = newGraph();
    const refused = { code: 'EINVAL', message: "Driver doesn't support backing files" };
    expect(await failureOf(graph.open({ driver: 'plain', file: FILE, backing: FILE }))).toEqual(refused);
    expect(await failureOf(graph.open({ driver: 'plain', file: FILE, backing: 'n' }))).toEqual(refused);
    expect(await failureOf(graph.open({ ...FILE, backing: FILE }))).toEqual(refused);
    await (await graph.open({ driver: 'plain', file: FILE, backing: null })).close();
  });
});

describe('BL-CHAIN-7: references, none, and formats that are not told', () => {
  test('a node that is open', async () => {
    const { graph } = newGraph();
    const node = await graph.add({ driver: 'file', filename: '/b', 'node-name': 'b' });
    const disk = await graph.open({ ...TOP, names: 'x', format: 'plain', backing: 'b' });
    expect(disk.node.backing?.node).toBe(node);
    expect(await failureOf(graph.open({ ...TOP, backing: 'nope' }))).toEqual({
      code: 'ENODEV',
      message: "Could not open backing file: Cannot find device='nope' nor node-name='nope'",
    });
    const both = graph.open({ ...TOP, backing: 'b', 'backing.driver': 'raw' });
    expect((await failureOf(both)).message).toBe(
      'Could not open backing file: Cannot reference an existing block device with additional options or a new filename',
    );
  });

  test('null leaves it out; an empty text does too, with a warning', async () => {
    const world = newGraph();
    expect(await below({ names: 'x', format: 'plain', backing: null }, world)).toBeUndefined();
    expect(world.host.warnings).toEqual([]);
    expect(await below({ names: 'x', format: 'plain', backing: '' }, world)).toBeUndefined();
    expect(world.host.warnings).toEqual(['warning: Use of "backing": "" is deprecated; use "backing": null instead']);
  });

  test('a format that is not told is guessed only where the policy lets it', async () => {
    const { graph } = newGraph();
    expect((await failureOf(graph.open({ ...TOP, names: 'x' }))).message).toBe(
      "Could not open backing file: The format of '/d/x' is not told by '/d/top', and is not guessed for files that images name",
    );
    expect(await below({ names: 'x' }, newGraph({ ...DEFAULT_OPEN_POLICY, probe: true }))).toBe('raw /d/x');
  });
});
