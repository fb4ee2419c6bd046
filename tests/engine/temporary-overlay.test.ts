/** What `snapshot=on` puts on top of an image, and the file it is in (BL-OPEN-28, BL-MISC-1). */
import { describe, expect, test } from 'vitest';
import { type DriverSpec, defineProtocol } from '../../src/core/driver.ts';
import { BlockError } from '../../src/core/errors.ts';
import { Graph } from '../../src/core/graph.ts';
import type { Host } from '../../src/core/host.ts';
import { makeTemporaryFile } from '../../src/core/temporary-file.ts';
import { graphPicture } from '../../src/jobs/picture/model.ts';
import { graphTree } from '../../src/jobs/picture/tree.ts';
import { SimHost } from '../../src/testing/index.ts';
import { DRIVERS, graphOn } from '../support/drivers.ts';
import { failing, failureOf, Storage } from './storage.ts';

const FOLDER = '/var/tmp';

function newHost(): SimHost {
  const host = new SimHost();
  host.put('/raw', new Uint8Array(4096).fill(7));
  return host;
}

const open = (host: Host) => graphOn(host).open('/raw', { format: 'raw', writable: true, snapshot: true });

/** Replaces some of what a host does with files. */
function hostWith(host: SimHost, files: Partial<Host['files']>): Host {
  return Object.assign(host, { files: { ...host.files, ...files } });
}

type OpenFile = Host['files']['open'];

/** Nothing is open, nothing is left over, and the image is as it was. */
async function expectUntouched(host: SimHost): Promise<void> {
  expect(host.openFiles).toEqual([]);
  expect(await host.files.list(FOLDER).catch(() => [])).toEqual([]);
  expect(host.contents('/raw')).toEqual(new Uint8Array(4096).fill(7));
}

describe('BL-MISC-1: a temporary file', () => {
  test('is new, empty and private, vl. and six letters or digits', async () => {
    const host = newHost();
    const modes: unknown[] = [];
    const { open: openFile } = host.files;
    const open: OpenFile = (path, mode) => {
      modes.push(mode);
      return openFile(path, mode);
    };
    hostWith(host, { open });
    const names = [await makeTemporaryFile(host), await makeTemporaryFile(host)];
    for (const name of names) {
      expect(name).toMatch(/^\/var\/tmp\/vl\.[A-Za-z0-9]{6}$/);
      expect((await host.files.stat(name)).size).toBe(0);
    }
    expect(new Set(names).size).toBe(2);
    expect(modes).toEqual(Array(2).fill({ write: true, create: 'new', createMode: 0o600 }));
    expect(host.openFiles).toEqual([]);
  });

  test('another name is taken where one is there already', async () => {
    const host = newHost();
    let tries = 0;
    const { open: openFile } = host.files;
    const open: OpenFile = async (path, mode) => {
      if (tries++ < 3) throw new BlockError('EEXIST', 'File exists');
      return openFile(path, mode);
    };
    expect(await makeTemporaryFile(hostWith(host, { open }))).toMatch(/^\/var\/tmp\/vl\./);
    expect(tries).toBe(4);
  });

  test('cannot be made', async () => {
    const host = newHost();
    host.faults.inject({ operation: 'open', code: 'ENOSPC' });
    const { code, message } = await failureOf(makeTemporaryFile(host));
    expect(code).toBe('ENOSPC');
    expect(message).toMatch(
      /^Could not open temporary file '\/var\/tmp\/vl\.[A-Za-z0-9]{6}': No space left on device$/,
    );
  });
});

test('BL-INFO-11: an overlay that goes with its users is told as one, and what is below it is not', async () => {
  const graph = graphOn(newHost());
  const disk = await graph.open('/raw', { format: 'raw', writable: true, snapshot: true });
  expect(graph.nodes().map((node) => [node.driver.kind, node.temporary])).toEqual([
    ['protocol', false],
    ['format', false],
    ['protocol', false],
    ['format', true],
  ]);
  expect(graphTree(graphPicture(graph)).match(/.*temporary.*/g)).toEqual([
    expect.stringMatching(/4 KiB, .* in use, writable, temporary$/),
  ]);
  await disk.close();
});

describe('BL-OPEN-28: an overlay that cannot be', () => {
  test('without a folder for temporary files', async () => {
    const host = newHost();
    const { temporaryFolder, ...files } = host.files;
    expect(temporaryFolder).toBe(FOLDER);
    const message = 'Could not get temporary filename: Operation not supported';
    expect(await failureOf(open(Object.assign(host, { files })))).toEqual({ code: 'ENOTSUP', message });
    await expectUntouched(host);
  });

  test('with one that cannot be written', async () => {
    const host = newHost();
    const { open: openFile } = host.files;
    const refuse: OpenFile = async (path, mode) => {
      if (path.startsWith(FOLDER)) throw new BlockError('EACCES', 'Permission denied');
      return openFile(path, mode);
    };
    expect((await failureOf(open(hostWith(host, { open: refuse })))).message).toMatch(
      /^Could not open temporary file '\/var\/tmp\/vl\.\w{6}': Permission denied$/,
    );
    await expectUntouched(host);
  });

  test('whose image cannot be made', async () => {
    const host = newHost();
    host.faults.inject({ operation: 'write', code: 'ENOSPC' });
    const { code, message } = await failureOf(open(host));
    expect(code).toBe('ENOSPC');
    expect(message).toMatch(/^Could not create temporary overlay '\/var\/tmp\/vl\.\w{6}': .*No space left on device$/);
    await expectUntouched(host);
  });

  test('over what loses its length', async () => {
    const host = newHost();
    const storage = new Storage(4096);
    let lost = false;
    const losing: DriverSpec = defineProtocol({
      name: 'losing',
      summary: 'tells its length while it is opened',
      options: {},
      open: async () => ({
        ...storage.node(),
        length: () => (lost ? failing('ENOMEDIUM')() : 4096),
        // Asked when the length is known.
        limits() {
          lost = true;
          return {};
        },
      }),
    });
    const graph = new Graph({ host, drivers: [...DRIVERS, losing] });
    expect(await failureOf(graph.open({ driver: 'losing' }, { writable: true, snapshot: true }))).toEqual({
      code: 'ENOMEDIUM',
      message: 'Could not get image size: No medium found',
    });
    expect(graph.nodes()).toEqual([]);
    await expectUntouched(host);
  });
});
